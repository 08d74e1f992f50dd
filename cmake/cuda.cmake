# SPDX-License-Identifier: MIT
# The CUDA language for target faiss_gmm_cuda: machine code for compute capability 8.0 (and PTX, which
# newer drivers compile for newer chips) and for Hopper with its own instructions (90a). The runtime is
# linked statically, so a program needs no more than the driver.
set(CMAKE_CUDA_ARCHITECTURES OFF) # CMake 3.25 does not know 90a: the flags below say it
if(FAISS_GMM_CCACHE AND NOT DEFINED CMAKE_CUDA_COMPILER_LAUNCHER)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${FAISS_GMM_CCACHE})
endif()
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.4)
    message(FATAL_ERROR "FAISS_GMM_CUDA: given nvcc ${CMAKE_CUDA_COMPILER_VERSION} "
        "(${CMAKE_CUDA_COMPILER}); allowed: 12.4 and newer (Debian's own, 11.8, does not know Hopper's "
        "matrix instructions); set CMAKE_CUDA_COMPILER to a newer one.")
endif()
find_package(CUDAToolkit REQUIRED)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
if(NOT DEFINED FAISS_GMM_CUDA_PORTABLE)
    set(FAISS_GMM_CUDA_PORTABLE "--generate-code=arch=compute_80,code=[sm_80,compute_80]")
endif()
set(FAISS_GMM_CUDA_HOPPER "--generate-code=arch=compute_90a,code=sm_90a")
