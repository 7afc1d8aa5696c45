# What is installed beside the program, and the Debian package (cpack -G DEB) made of it.
# Installing does not build the tests.
set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY ON)
set(packaging ${CMAKE_SOURCE_DIR}/packaging)

find_program(SCDOC scdoc)
if(SCDOC)
  set(manual ${CMAKE_BINARY_DIR}/jemtrace.8.gz)
  add_custom_command(OUTPUT ${manual}
    COMMAND sh -c "'${SCDOC}' <'${CMAKE_SOURCE_DIR}/docs/jemtrace.8.scd' >jemtrace.8 && gzip -9nc jemtrace.8 >'${manual}'"
    DEPENDS ${CMAKE_SOURCE_DIR}/docs/jemtrace.8.scd VERBATIM)
  add_custom_target(manual ALL DEPENDS ${manual})
  install(FILES ${manual} DESTINATION ${CMAKE_INSTALL_MANDIR}/man8)
else()
  message(STATUS "no scdoc: the manual page is not made")
endif()

install(FILES ${packaging}/completions/jemtrace.bash
  DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME jemtrace)
install(FILES ${packaging}/completions/_jemtrace DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)
install(FILES ${packaging}/completions/jemtrace.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
# Where systemd, sysctl and dpkg look, whatever the prefix is called.
install(FILES ${packaging}/systemd/jemtrace.service ${packaging}/systemd/jemtrace.socket DESTINATION lib/systemd/system)
install(FILES ${packaging}/prometheus/rules.yml ${packaging}/grafana/jemtrace.json
  DESTINATION ${CMAKE_INSTALL_DATADIR}/jemtrace)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME jemtrace)
set(CPACK_PACKAGE_VENDOR jemtrace)
set(CPACK_PACKAGE_CONTACT "jemtrace maintainers <maintainers@jemtrace.invalid>")
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
  OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION "eBPF tracer for every process that uses jemalloc
Shows which memory jemalloc holds, when and why it gives pages back to the
kernel, what that costs and who pays: for running processes, stripped or not,
without restart and without touching them.

As a service it exports the same as metrics for Prometheus and OpenTelemetry.")

# Debian's changelog and copyright: gzip -n, so that the same sources make the same package.
set(changelog ${CMAKE_BINARY_DIR}/changelog.Debian.gz)
add_custom_command(OUTPUT ${changelog}
  COMMAND sh -c "gzip -9nc '${packaging}/debian/changelog' >'${changelog}'"
  DEPENDS ${packaging}/debian/changelog VERBATIM)
add_custom_target(changelog ALL DEPENDS ${changelog})
install(FILES ${changelog} ${packaging}/debian/copyright DESTINATION ${CMAKE_INSTALL_DOCDIR})
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA
  ${packaging}/debian/postinst ${packaging}/debian/prerm ${packaging}/debian/postrm)
include(CPack)
