# SPDX-License-Identifier: MIT
# The installed tree: the archive, the public headers, and what find_package(faiss_gmm) reads.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/faiss_gmm)

install(TARGETS faiss_gmm EXPORT faiss_gmmTargets
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
    FILE_SET HEADERS DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
if(FAISS_GMM_CUDA)
    install(TARGETS faiss_gmm_cuda EXPORT faiss_gmmTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
install(EXPORT faiss_gmmTargets NAMESPACE faiss_gmm:: DESTINATION ${package_dir})

configure_package_config_file(
    ${PROJECT_SOURCE_DIR}/cmake/faiss_gmmConfig.cmake.in
    ${PROJECT_BINARY_DIR}/faiss_gmmConfig.cmake
    INSTALL_DESTINATION ${package_dir} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(
    ${PROJECT_BINARY_DIR}/faiss_gmmConfigVersion.cmake
    COMPATIBILITY SameMinorVersion) # while the version is 0.x
install(FILES
    ${PROJECT_BINARY_DIR}/faiss_gmmConfig.cmake
    ${PROJECT_BINARY_DIR}/faiss_gmmConfigVersion.cmake
    ${PROJECT_SOURCE_DIR}/cmake/FindOpenBLAS.cmake
    DESTINATION ${package_dir})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
