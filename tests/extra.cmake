# What single test programs need beside the library.
if(TARGET test_recipe)
  target_link_libraries(test_recipe PRIVATE terrane_recipe PkgConfig::LUA)
endif()
