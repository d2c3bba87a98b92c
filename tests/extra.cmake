# What single test programs need beside the library.
foreach(test_of_lua test_recipe test_recipe_reconstruct test_recipe_learning)
  if(TARGET ${test_of_lua})
    target_link_libraries(${test_of_lua} PRIVATE terrane_recipe PkgConfig::LUA)
  endif()
endforeach()

foreach(test_of_data test_data test_data_hostile test_data_batches test_data_scene test_fit_labels test_job_learn_data)
  if(TARGET ${test_of_data})
    target_link_libraries(${test_of_data} PRIVATE PkgConfig::HDF5)
  endif()
endforeach()

# The install test builds programs against what this build installs.
find_program(TRN_CXX NAMES c++ g++ clang++ REQUIRED)
add_dependencies(test_install terrane_command)
set(pkg_config_options $<$<NOT:$<BOOL:${BUILD_SHARED_LIBS}>>:--static>)
target_compile_definitions(test_install PRIVATE INSTALL_PKG_CONFIG_OPTIONS="${pkg_config_options}"
  INSTALL_BUILD="${CMAKE_BINARY_DIR}" INSTALL_CONFIG="$<CONFIG>" INSTALL_LIB="${CMAKE_INSTALL_LIBDIR}"
  INSTALL_CMAKE="${CMAKE_COMMAND}" INSTALL_PKG_CONFIG="${PKG_CONFIG_EXECUTABLE}"
  INSTALL_CC="${CMAKE_C_COMPILER}" INSTALL_CFLAGS="${CMAKE_C_FLAGS}" INSTALL_CXX="${TRN_CXX}")
if(test_objects) # its programs are users' programs, with drivers that leak
  set_property(TEST install.install APPEND PROPERTY ENVIRONMENT ASAN_OPTIONS=detect_leaks=0)
endif()

# Long checks with encoders of their published sizes, beside the test run: gigabytes are written and removed.
if(TARGET terrane_command)
  add_custom_target(full-checks
    COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/full/memory_limit.sh ${CMAKE_BINARY_DIR}
    COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/full/published_sizes.sh ${CMAKE_BINARY_DIR}
    COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/full/weak_devices.sh ${CMAKE_BINARY_DIR}
    DEPENDS terrane_command
    USES_TERMINAL VERBATIM)
endif()

# Kernels compiled for GPUs that are not here, by the drivers that tests/drivers/prepare.sh puts into this folder.
set(TERRANE_DRIVERS ${CMAKE_BINARY_DIR}/drivers CACHE PATH "Folder of tests/drivers/prepare.sh")
if(TARGET terrane_command)
  add_custom_target(static-check
    COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/drivers/static_check.sh ${TERRANE_DRIVERS} ${CMAKE_BINARY_DIR}
    DEPENDS terrane_command
    USES_TERMINAL VERBATIM)
endif()
