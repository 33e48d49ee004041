# SPDX-License-Identifier: Apache-2.0
# RESIDUA_CUDA = OFF, ON (needs nvcc) or EMULATED: the same kernels run by the CPU, for tests; slow by far.
set(RESIDUA_CUDA OFF CACHE STRING "CUDA kernels: OFF, ON or EMULATED")
set_property(CACHE RESIDUA_CUDA PROPERTY STRINGS OFF ON EMULATED)
# Machine code for what data centres have; newer devices compile the PTX of 9.0 when they first load it.
set(RESIDUA_CUDA_ARCHITECTURES "80-real;90-real;90-virtual" CACHE STRING "What nvcc compiles for, unless CMAKE_CUDA_ARCHITECTURES is given")
set(RESIDUA_CUDA_OLDEST 12.4)

if(NOT RESIDUA_CUDA MATCHES "^(ON|OFF|TRUE|FALSE|YES|NO|1|0|EMULATED)$")
  message(FATAL_ERROR "RESIDUA_CUDA is '${RESIDUA_CUDA}'; it is OFF, ON (needs nvcc) or EMULATED (kernels run by the CPU, for tests).")
endif()
if(RESIDUA_CUDA AND NOT RESIDUA_CUDA STREQUAL "EMULATED")
  # Before the language is enabled, which otherwise takes the compiler's default.
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES ${RESIDUA_CUDA_ARCHITECTURES})
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    message(FATAL_ERROR "RESIDUA_CUDA=ON needs nvcc ${RESIDUA_CUDA_OLDEST} or later, and none was found that works. Install the CUDA toolkit "
                        "and put nvcc on PATH, or pass -DCMAKE_CUDA_COMPILER=<path of nvcc> (environment: CUDACXX). "
                        "Without a toolkit: RESIDUA_CUDA=OFF, or EMULATED for tests on the CPU.")
  endif()
  enable_language(CUDA)
  # CMake 3.25 and before do not know the flag of a compiler that is newer than they are.
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20" CACHE INTERNAL "")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20" CACHE INTERNAL "")
  endif()
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS RESIDUA_CUDA_OLDEST)
    message(FATAL_ERROR "RESIDUA_CUDA=ON needs nvcc ${RESIDUA_CUDA_OLDEST} or later; ${CMAKE_CUDA_COMPILER} is ${CMAKE_CUDA_COMPILER_VERSION}.")
  endif()
  find_package(CUDAToolkit ${RESIDUA_CUDA_OLDEST} REQUIRED)
endif()

file(GLOB RESIDUA_CUDA_KERNELS CONFIGURE_DEPENDS cpp/cuda/*.cu)
file(GLOB RESIDUA_CUDA_HOST CONFIGURE_DEPENDS cpp/cuda/*.cpp)
list(FILTER RESIDUA_CUDA_HOST EXCLUDE REGEX "/emulat[^/]*[.]cpp$")

# The kernels, and what starts them, run on the CPU.
function(residua_add_emulated_cuda target)
  set(kernels ${RESIDUA_CUDA_KERNELS})
  list(FILTER kernels EXCLUDE REGEX "/device_[^/]*[.]cu$")
  file(GLOB emulation CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/cpp/cuda/emulat*.cpp)
  set_source_files_properties(${kernels} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-xc++")
  add_library(${target} STATIC ${kernels} ${RESIDUA_CUDA_HOST} ${emulation})
  target_link_libraries(${target} PUBLIC residua_core)
endfunction()

# How nvcc compiles a target.
function(residua_compile_for_device target)
  set_target_properties(${target} PROPERTIES CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_RUNTIME_LIBRARY Static
                                             CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}" CUDA_VISIBILITY_PRESET hidden)
  # Floating point is contracted by fmaf() alone, as on the CPU. Warning 554 is about conversions that `requires` rules out.
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:-fmad=false;-Werror=all-warnings;--diag-suppress=554;--expt-relaxed-constexpr;-Xcompiler=-Wall,-Wextra,-ffp-contract=off>")
endfunction()

function(residua_add_cuda target)
  add_library(${target} STATIC ${RESIDUA_CUDA_KERNELS} ${RESIDUA_CUDA_HOST})
  target_link_libraries(${target} PUBLIC residua_core CUDA::cudart_static)
  residua_compile_for_device(${target})
endfunction()

# The extension module. It keeps the CUDA runtime to itself: other libraries of the process bring theirs. The component
# is all that the distribution residua-cuda installs (python/residua-cuda).
function(residua_finish_cuda_module target)
  set_target_properties(${target} PROPERTIES LINKER_LANGUAGE CXX)
  if(UNIX AND NOT APPLE)
    target_link_options(${target} PRIVATE "LINKER:--exclude-libs,ALL" "LINKER:--gc-sections")
  endif()
  if(DEFINED SKBUILD_PROJECT_VERSION)
    target_compile_definitions(${target} PRIVATE RESIDUA_VERSION="${SKBUILD_PROJECT_VERSION}")
  endif()
  install(TARGETS ${target} LIBRARY DESTINATION residua COMPONENT cuda)
  if(DEFINED SKBUILD_METADATA_DIR)
    install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${SKBUILD_METADATA_DIR}/licenses COMPONENT cuda)
  endif()
endfunction()
