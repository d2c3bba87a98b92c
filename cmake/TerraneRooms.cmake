# A room is a folder of runtime/ with one door, the header of its own name. trn_room() makes it an object
# library that can include its own headers and the doors of the rooms it names: nothing else is on its
# include path, so a wrong include fails to build.

set(TRN_ROOMS "" CACHE INTERNAL "")
set(TRN_ROOM_LIBS "" CACHE INTERNAL "")
find_path(TRN_VULKAN_INCLUDE vulkan/vulkan.h REQUIRED)
find_path(TRN_VOLK_INCLUDE volk.h REQUIRED)

function(trn_room name)
  cmake_parse_arguments(ROOM "" "EMBED" "ROOMS;LIBS" ${ARGN})
  set(dir ${CMAKE_SOURCE_DIR}/runtime/${name})
  # Doors are copied alone into one folder each, so that a room's private headers stay private.
  set(door ${CMAKE_BINARY_DIR}/doors/${name})
  configure_file(${dir}/${name}.h ${door}/${name}.h COPYONLY)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${dir}/*.c)
  if(NOT sources)
    return() # a room is opened when its first tenant arrives; its door may be read before
  endif()
  if(ROOM_EMBED)
    trn_embed_text(${CMAKE_BINARY_DIR}/generated/shaders_embedded.c trn_shader_files ${ROOM_EMBED} "*.comp;*.glsl")
    list(APPEND sources ${CMAKE_BINARY_DIR}/generated/shaders_embedded.c)
  endif()
  add_library(room_${name} OBJECT ${sources})
  target_include_directories(room_${name} PRIVATE ${dir} ${CMAKE_BINARY_DIR}/generated)
  foreach(other ${ROOM_ROOMS})
    target_include_directories(room_${name} PRIVATE ${CMAKE_BINARY_DIR}/doors/${other})
  endforeach()
  if(name STREQUAL "gpu")
    target_include_directories(room_${name} SYSTEM PRIVATE ${TRN_VULKAN_INCLUDE} ${TRN_VOLK_INCLUDE})
    target_compile_definitions(room_${name} PRIVATE VK_NO_PROTOTYPES
                               TRN_SHARE_DIR="${CMAKE_INSTALL_FULL_DATADIR}/terrane")
  endif()
  target_link_libraries(room_${name} PRIVATE ${ROOM_LIBS})
  set(TRN_ROOMS "${TRN_ROOMS};${name}" CACHE INTERNAL "")
  set(TRN_ROOM_LIBS "${TRN_ROOM_LIBS};${ROOM_LIBS}" CACHE INTERNAL "")
endfunction()

# Writes OUTPUT, a C file with a table SYMBOL of {name, text} of the files under DIR that match PATTERNS.
function(trn_embed_text output symbol dir patterns)
  set(files "")
  foreach(pattern ${patterns})
    file(GLOB_RECURSE found CONFIGURE_DEPENDS ${dir}/${pattern})
    list(APPEND files ${found})
  endforeach()
  list(SORT files)
  add_custom_command(
    OUTPUT ${output}
    COMMAND ${CMAKE_COMMAND} -DOUTPUT=${output} -DSYMBOL=${symbol} -DDIR=${dir} "-DFILES=${files}"
            -P ${CMAKE_SOURCE_DIR}/cmake/embed_text.cmake
    DEPENDS ${files} ${CMAKE_SOURCE_DIR}/cmake/embed_text.cmake
    COMMENT "Embedding ${dir}"
    VERBATIM)
endfunction()

# libterrane from all rooms that are open, with its public headers.
function(trn_library)
  add_library(terrane)
  add_library(terrane::terrane ALIAS terrane)
  foreach(room ${TRN_ROOMS})
    target_sources(terrane PRIVATE $<TARGET_OBJECTS:room_${room}>)
    target_include_directories(terrane PUBLIC $<BUILD_INTERFACE:${CMAKE_BINARY_DIR}/doors/${room}>)
  endforeach()
  set_target_properties(terrane PROPERTIES LINKER_LANGUAGE C)
  set(libs ${TRN_ROOM_LIBS})
  list(REMOVE_DUPLICATES libs)
  target_link_libraries(terrane PRIVATE ${libs})
  target_include_directories(terrane PUBLIC $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/terrane>)
endfunction()
