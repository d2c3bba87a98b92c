# The build compiles every shader with its default macros, for both ways to reach buffers, so that a broken shader breaks the
# build. (At run time libshaderc compiles what a device needs.) Those of cooperative matrices are left out where glslc does not
# know them: there they come from a shader pack.
find_program(GLSLC glslc REQUIRED)
if(NOT DEFINED TRN_GLSLC_KNOWS_MATRIX)
  set(probe ${CMAKE_BINARY_DIR}/generated/matrix_probe)
  file(WRITE ${probe}.comp "#version 460\n#extension GL_KHR_memory_scope_semantics : require\n"
                           "#extension GL_KHR_cooperative_matrix : require\nvoid main() {}\n")
  execute_process(COMMAND ${GLSLC} --target-env=vulkan1.2 -o ${probe}.spv ${probe}.comp RESULT_VARIABLE result ERROR_QUIET)
  string(COMPARE EQUAL "${result}" 0 knows)
  set(TRN_GLSLC_KNOWS_MATRIX ${knows} CACHE INTERNAL "")
endif()

function(trn_check_shaders)
  file(GLOB shaders CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/shaders/*.comp)
  set(outputs "")
  foreach(shader ${shaders})
    get_filename_component(name ${shader} NAME_WE)
    file(STRINGS ${shader} needs_addresses REGEX "#include \"wide.glsl\"|buffer_reference")
    file(STRINGS ${shader} needs_matrix REGEX "GL_KHR_cooperative_matrix")
    set(accesses address storage)
    if(needs_matrix AND NOT TRN_GLSLC_KNOWS_MATRIX)
      continue()
    endif()
    if(needs_addresses)
      set(accesses address)
    endif()
    foreach(access ${accesses})
      set(define "")
      if(access STREQUAL address)
        set(define -DTRN_ADDRESS=1)
      endif()
      set(output ${CMAKE_BINARY_DIR}/generated/shader_check/${name}.${access}.spv)
      add_custom_command(
        OUTPUT ${output}
        COMMAND ${GLSLC} --target-env=vulkan1.2 -std=460 -DTRN_SUBGROUP_SIZE=8 ${define} -I ${CMAKE_SOURCE_DIR}/shaders
                -I ${CMAKE_SOURCE_DIR}/cmake/shader_defaults -MD -MF ${output}.d -MT ${output} -o ${output} ${shader}
        DEPFILE ${output}.d
        DEPENDS ${shader}
        COMMENT "Checking shader ${name} (${access})"
        VERBATIM)
      list(APPEND outputs ${output})
    endforeach()
  endforeach()
  file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/generated/shader_check)
  add_custom_target(check_shaders ALL DEPENDS ${outputs})
endfunction()
