# cmake --install BUILD --prefix PREFIX: the C library, its headers, and what CMake (find_package)
# and pkg-config need to find it. Nothing installed holds an absolute path.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

file(STRINGS pyproject.toml version_line REGEX "^version = ")
string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" DTWIN_VERSION "${version_line}")

set_target_properties(dtwin PROPERTIES EXCLUDE_FROM_ALL OFF VERSION ${DTWIN_VERSION} SOVERSION 0)
install(TARGETS dtwin EXPORT dtwin-targets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES csrc/dtwin.h csrc/dtwin_cuda.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

set(DTWIN_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/dtwin)
install(EXPORT dtwin-targets FILE dtwin-config.cmake NAMESPACE dtwin::
        DESTINATION ${DTWIN_CMAKE_DIR})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/dtwin-config-version.cmake
                                 VERSION ${DTWIN_VERSION} COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/dtwin-config-version.cmake
        DESTINATION ${DTWIN_CMAKE_DIR})

file(RELATIVE_PATH DTWIN_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/dtwin.pc.in ${CMAKE_CURRENT_BINARY_DIR}/dtwin.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/dtwin.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
