# What `cmake --install` puts where: the library with its headers, a CMake package and a pkg-config file, the command, the Lua
# modules and type stubs, the recipes.
set_target_properties(terrane PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
install(TARGETS terrane EXPORT terrane-targets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(NOT BUILD_SHARED_LIBS) # who links the static library links what it was made with
  install(TARGETS terrane_shaderc EXPORT terrane-targets)
endif()
foreach(room ${TRN_ROOMS})
  install(FILES runtime/${room}/${room}.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/terrane)
endforeach()
install(FILES runtime/terrane.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/terrane)

if(TARGET terrane_command)
  set_target_properties(terrane_command PROPERTIES INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
  install(TARGETS terrane_command DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(DIRECTORY recipes/ DESTINATION ${CMAKE_INSTALL_DATADIR}/terrane/recipes FILES_MATCHING PATTERN "*.lua")
install(DIRECTORY lua/ DESTINATION ${CMAKE_INSTALL_DATADIR}/terrane/lua FILES_MATCHING PATTERN "*.lua")

install(EXPORT terrane-targets NAMESPACE terrane:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/terrane)
configure_package_config_file(cmake/terrane-config.cmake.in ${CMAKE_BINARY_DIR}/generated/terrane-config.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/terrane)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/generated/terrane-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/generated/terrane-config.cmake ${CMAKE_BINARY_DIR}/generated/terrane-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/terrane)
# relative, so that an installation may move and `cmake --install --prefix` is free to choose
file(RELATIVE_PATH TRN_PC_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
get_target_property(shaderc_libs terrane_shaderc INTERFACE_LINK_LIBRARIES)
set(TRN_PC_SHADERC "")
foreach(lib ${shaderc_libs})
  if(NOT lib MATCHES "^[-/]")
    set(lib -l${lib})
  endif()
  string(APPEND TRN_PC_SHADERC " ${lib}")
endforeach()
configure_file(cmake/terrane.pc.in ${CMAKE_BINARY_DIR}/generated/terrane.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/generated/terrane.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
