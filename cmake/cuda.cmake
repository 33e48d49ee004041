# SPDX-License-Identifier: Apache-2.0
# RESIDUA_CUDA = OFF, ON (needs nvcc) or EMULATED: the same kernels run by the CPU, for tests; slow by far.
set(RESIDUA_CUDA OFF CACHE STRING "CUDA kernels: OFF, ON or EMULATED")
set_property(CACHE RESIDUA_CUDA PROPERTY STRINGS OFF ON EMULATED)
set(RESIDUA_CUDA_ARCHITECTURES "80-real;90-real;90-virtual" CACHE STRING "What nvcc compiles for (CMAKE_CUDA_ARCHITECTURES)")

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

function(residua_add_cuda target)
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES ${RESIDUA_CUDA_ARCHITECTURES})
  endif()
  find_package(CUDAToolkit 12.4 REQUIRED)
  add_library(${target} STATIC ${RESIDUA_CUDA_KERNELS} ${RESIDUA_CUDA_HOST})
  target_link_libraries(${target} PUBLIC residua_core CUDA::cudart_static)
  set_target_properties(${target} PROPERTIES CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_RUNTIME_LIBRARY Static
                                             CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}")
  # Floating point is contracted by fmaf() alone, as on the CPU.
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:-fmad=false;-Werror=all-warnings;--expt-relaxed-constexpr;-Xcompiler=-Wall,-Wextra>")
endfunction()
