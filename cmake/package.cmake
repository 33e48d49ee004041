# SPDX-License-Identifier: Apache-2.0
# The C and C++ package: residua::residua (shared), residua::static, the headers, find_package(residua).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

file(GLOB RESIDUA_CAPI_SOURCES CONFIGURE_DEPENDS cpp/capi/*.cpp)
add_library(residua_capi OBJECT ${RESIDUA_CAPI_SOURCES})
target_link_libraries(residua_capi PRIVATE residua_flags)
target_include_directories(residua_capi PUBLIC cpp/include)
target_compile_definitions(residua_capi PRIVATE RESIDUA_BUILDING RESIDUA_VERSION="${PROJECT_VERSION}")

function(residua_describe_library target)
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/cpp/include>
                                              $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  set_target_properties(${target} PROPERTIES OUTPUT_NAME residua VERSION ${PROJECT_VERSION}
                        SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
endfunction()

# The functions of residua.h are all that the shared library shows; a test lists its symbols. Hidden
# visibility is not enough: instances of standard templates stay visible without a list.
add_library(residua SHARED $<TARGET_OBJECTS:residua_capi>)
target_link_libraries(residua PRIVATE residua_core)
residua_describe_library(residua)
set(exports ${PROJECT_SOURCE_DIR}/cmake/exports)
if(APPLE)
  target_link_options(residua PRIVATE "LINKER:-exported_symbols_list,${exports}.apple.txt")
elseif(UNIX)
  target_link_options(residua PRIVATE "LINKER:--version-script,${exports}.elf.txt")
endif()
set_target_properties(residua PROPERTIES LINK_DEPENDS "${exports}.elf.txt;${exports}.apple.txt")

get_property(isa_targets GLOBAL PROPERTY RESIDUA_ISA_TARGETS)
set(objects $<TARGET_OBJECTS:residua_capi> $<TARGET_OBJECTS:residua_core>)
foreach(isa IN LISTS isa_targets)
  list(APPEND objects $<TARGET_OBJECTS:${isa}>)
endforeach()
add_library(residua_static STATIC ${objects})
target_link_libraries(residua_static PUBLIC Threads::Threads)
target_compile_definitions(residua_static INTERFACE RESIDUA_STATIC)
residua_describe_library(residua_static)
set_target_properties(residua_static PROPERTIES EXPORT_NAME static)
if(WIN32)
  # An import library of the shared one has the plain name.
  set_target_properties(residua_static PROPERTIES OUTPUT_NAME residua_static)
endif()

set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/residua)
install(TARGETS residua residua_static EXPORT residua-targets)
install(DIRECTORY cpp/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT residua-targets NAMESPACE residua:: DESTINATION ${config_dir})
configure_package_config_file(cmake/residua-config.cmake.in residua-config.cmake INSTALL_DESTINATION ${config_dir})
# Before 1.0 a minor version may change names.
write_basic_package_version_file(residua-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/residua-config.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/residua-config-version.cmake DESTINATION ${config_dir})
