# The build compiles every shader with its default macros, for both ways to reach buffers, so that a broken shader breaks the
# build. (At run time libshaderc compiles what a device needs.)
find_program(GLSLC glslc REQUIRED)

function(trn_check_shaders)
  file(GLOB shaders CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/shaders/*.comp)
  set(outputs "")
  foreach(shader ${shaders})
    get_filename_component(name ${shader} NAME_WE)
    file(STRINGS ${shader} needs_addresses REGEX "#include \"wide.glsl\"|buffer_reference")
    set(accesses address storage)
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
        COMMAND ${GLSLC} --target-env=vulkan1.2 -DTRN_SUBGROUP_SIZE=8 ${define} -I ${CMAKE_SOURCE_DIR}/shaders
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
