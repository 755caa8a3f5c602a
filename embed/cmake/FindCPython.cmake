# Finds a CPython to embed: headers, a shared libpython, and the interpreter that
# belongs to them. It stands alone: copy it with interrogate.py beside it.
#
# Input
#   CPython_WANTED       a version ("3.14", "3.13.0"), a path of an interpreter (also
#                        one in a virtual environment), or empty: the newest
#   CPython_DIRS         directories to look in, instead of PATH, pyenv and the system's
#   CPython_FIND_VERSION the oldest that will do (find_package's argument)
#
# Output
#   CPython_FOUND, CPython_VERSION ("3.14.8"), CPython_EXECUTABLE (absolute; a virtual
#   environment's own path), CPython_INCLUDE_DIRS, CPython_LIBRARY, CPython_RPATH (the
#   library's directory, empty when the loader looks there by itself),
#   CPython_EXT_SUFFIX, CPython_LDVERSION, and the target CPython::Embed
#
# Every candidate is asked by running it. Nothing usable is a fatal error that lists
# what was looked at, why each was refused, and the commands which install one. As a
# script (cmake -DCPython_WANTED=3.14 -P FindCPython.cmake) it only answers whether there
# is one.

cmake_policy(VERSION 3.25)

set(_cpython_interrogator "${CMAKE_CURRENT_LIST_DIR}/interrogate.py")

# Runs the interpreter at `path`; sets in the caller ${out}_<fact> for each fact, and
# ${out}_refusal to the reason why it cannot be used (empty: it can).
function(_cpython_ask path oldest out)
  execute_process(
    COMMAND "${path}" -I -S "${_cpython_interrogator}"
    RESULT_VARIABLE status
    OUTPUT_VARIABLE output
    ERROR_VARIABLE error
    TIMEOUT 30)
  set(${out}_version "" PARENT_SCOPE)
  if(NOT status STREQUAL "0")
    string(STRIP "${error}" error)
    string(REGEX REPLACE "\n.*" "" error "${error}")
    if(error STREQUAL "")
      set(error "${status}")
    endif()
    set(${out}_refusal "does not run: ${error}" PARENT_SCOPE)
    return()
  endif()
  # A semicolon in a path must not split it.
  string(REPLACE ";" "\\;" output "${output}")
  string(REGEX REPLACE "\n" ";" lines "${output}")
  foreach(line IN LISTS lines)
    if(line MATCHES "^([a-z_]+)=(.*)$")
      set(fact_${CMAKE_MATCH_1} "${CMAKE_MATCH_2}")
      set(${out}_${CMAKE_MATCH_1} "${CMAKE_MATCH_2}" PARENT_SCOPE)
    endif()
  endforeach()

  string(REGEX MATCH "^[0-9]+\\.[0-9]+" minor "${fact_version}")
  set(bits "${fact_bits}")
  if(CMAKE_SIZEOF_VOID_P)
    math(EXPR bits "${CMAKE_SIZEOF_VOID_P} * 8")
  endif()
  set(refusal "")
  if(NOT fact_implementation STREQUAL "cpython")
    set(refusal "is ${fact_implementation}, not CPython")
  elseif(fact_version VERSION_LESS oldest)
    set(refusal "is older than ${oldest}")
  elseif(fact_free_threaded)
    set(refusal "is a free-threaded build, which has no GIL to give each interpreter")
  elseif(NOT fact_bits EQUAL bits)
    set(refusal "is a ${fact_bits}-bit program; this build is ${bits}-bit")
  elseif(NOT fact_shared)
    set(refusal "was built without a shared libpython (--enable-shared)")
  elseif(fact_include_dir STREQUAL "")
    set(refusal "has no headers: no Python.h in ${fact_include_expected} \
(Debian, Ubuntu: python${minor}-dev)")
  elseif(fact_library STREQUAL "")
    set(refusal "has no ${fact_library_expected} to link with \
(Debian, Ubuntu: python${minor}-dev)")
  endif()
  set(${out}_refusal "${refusal}" PARENT_SCOPE)
endfunction()

# All interpreters worth asking, in order of preference for equal versions.
function(_cpython_candidates oldest out)
  set(dirs "")
  set(seen "")
  set(found "")
  string(REPLACE ":" ";" path_dirs "$ENV{PATH}")
  list(APPEND dirs ${path_dirs})
  set(pyenv_roots "$ENV{PYENV_ROOT}" "$ENV{HOME}/.pyenv" "/opt/pyenv")
  foreach(root IN LISTS pyenv_roots)
    if(IS_ABSOLUTE "${root}")
      file(GLOB versions "${root}/versions/*/bin")
      list(SORT versions COMPARE NATURAL ORDER DESCENDING)
      list(APPEND dirs ${versions})
    endif()
  endforeach()
  file(GLOB opt "/opt/*/bin")
  list(APPEND dirs /usr/local/bin /usr/bin ${opt})
  if(DEFINED CPython_DIRS)
    set(dirs "${CPython_DIRS}")
  endif()

  string(REGEX REPLACE "^([0-9]+)\\..*" "\\1" major "${oldest}")
  foreach(dir IN LISTS dirs)
    if(NOT IS_ABSOLUTE "${dir}" OR NOT IS_DIRECTORY "${dir}")
      continue()
    endif()
    # The name with a version first: what python3 means can change under the build.
    file(GLOB here "${dir}/python${major}.*")
    list(SORT here COMPARE NATURAL ORDER DESCENDING)
    if(EXISTS "${dir}/python${major}")
      list(APPEND here "${dir}/python${major}")
    endif()
    foreach(path IN LISTS here)
      if(NOT path MATCHES "/python${major}(\\.[0-9]+t?)?$" OR IS_DIRECTORY "${path}")
        continue()
      endif()
      # Names that say their age need not be run.
      if(path MATCHES "/python(${major}\\.[0-9]+)$" AND CMAKE_MATCH_1 VERSION_LESS oldest)
        continue()
      endif()
      # One file is asked once; a virtual environment's link counts as its own file.
      file(REAL_PATH "${path}" real)
      if(EXISTS "${dir}/../pyvenv.cfg")
        set(real "${dir}:${real}")
      endif()
      if(real IN_LIST seen)
        continue()
      endif()
      list(APPEND seen "${real}")
      list(APPEND found "${path}")
    endforeach()
  endforeach()
  set(${out} "${found}" PARENT_SCOPE)
endfunction()

set(_cpython_oldest "${CPython_FIND_VERSION}")
if(_cpython_oldest STREQUAL "")
  set(_cpython_oldest 3.13)
endif()

string(CONCAT _cpython_how
  "  Install one:\n"
  "    Debian   apt-get install python3-dev         (13 or newer)\n"
  "    Ubuntu   apt-get install python3-dev         (25.04 or newer; before that:\n"
  "             add-apt-repository ppa:deadsnakes/ppa && apt-get install python3.14-dev)\n"
  "    Fedora   dnf install python3-devel           (41 or newer)\n"
  "    Arch     pacman -S python\n"
  "    pyenv    PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install 3.14\n"
  "  and configure again. To name one: -DSUBHOST_PYTHON=3.14, or the path of an\n"
  "  interpreter, also of one in a virtual environment.\n")

set(_cpython_chosen "")
set(_cpython_report "")
set(_cpython_is_path FALSE)
if(CPython_WANTED MATCHES "/")
  set(_cpython_is_path TRUE)
  get_filename_component(_cpython_paths "${CPython_WANTED}" ABSOLUTE
    BASE_DIR "${CMAKE_SOURCE_DIR}")
elseif(CPython_WANTED STREQUAL "" OR CPython_WANTED MATCHES "^[0-9]+(\\.[0-9]+)*$")
  # What an earlier run chose for the same request stays chosen while it is usable.
  if(DEFINED CPython_CHOICE AND CPython_CHOICE MATCHES "^${CPython_WANTED}=(.+)$")
    _cpython_ask("${CMAKE_MATCH_1}" "${_cpython_oldest}" _cpython_it)
    if(_cpython_it_refusal STREQUAL "")
      set(_cpython_paths "${CMAKE_MATCH_1}")
    else()
      unset(CPython_CHOICE CACHE)
    endif()
  endif()
  if(NOT DEFINED _cpython_paths)
    _cpython_candidates("${_cpython_oldest}" _cpython_paths)
  endif()
else()
  # A command's name, as `python3.14`.
  set(_cpython_is_path TRUE)
  find_program(_cpython_command "${CPython_WANTED}" NO_CACHE)
  if(_cpython_command)
    set(_cpython_paths "${_cpython_command}")
  else()
    set(_cpython_paths "${CPython_WANTED}")
  endif()
endif()

foreach(_cpython_path IN LISTS _cpython_paths)
  if(_cpython_is_path AND NOT EXISTS "${_cpython_path}")
    set(_cpython_it_refusal "does not exist")
    set(_cpython_it_version "")
  elseif(IS_DIRECTORY "${_cpython_path}")
    set(_cpython_it_refusal "is a directory, not an interpreter")
    set(_cpython_it_version "")
  else()
    _cpython_ask("${_cpython_path}" "${_cpython_oldest}" _cpython_it)
  endif()
  if(_cpython_it_refusal STREQUAL "" AND NOT _cpython_is_path
      AND NOT CPython_WANTED STREQUAL ""
      AND NOT "${_cpython_it_version}." MATCHES "^${CPython_WANTED}\\.")
    set(_cpython_it_refusal "is not ${CPython_WANTED}")
  endif()
  if(NOT _cpython_it_refusal STREQUAL "")
    set(_cpython_name "${_cpython_path}")
    if(NOT _cpython_it_version STREQUAL "")
      string(APPEND _cpython_name " (${_cpython_it_version})")
    endif()
    string(APPEND _cpython_report "    ${_cpython_name} ${_cpython_it_refusal}\n")
    continue()
  endif()
  # The newest; a pre-release only when there is nothing else.
  set(_cpython_rank "0.${_cpython_it_version}")
  if(_cpython_it_level STREQUAL "final")
    set(_cpython_rank "1.${_cpython_it_version}")
  endif()
  if(_cpython_chosen STREQUAL "" OR _cpython_rank VERSION_GREATER _cpython_best)
    set(_cpython_best "${_cpython_rank}")
    set(_cpython_chosen "${_cpython_it_executable}")
    foreach(_fact version include_dir plat_include_dir library ext_suffix ldversion
        multiarch base_prefix)
      set(_cpython_chosen_${_fact} "${_cpython_it_${_fact}}")
    endforeach()
  endif()
endforeach()

if(_cpython_chosen STREQUAL "")
  if(_cpython_report STREQUAL "")
    set(_cpython_report "    PATH, pyenv, /usr/local/bin, /usr/bin, /opt: no python3 there\n")
    if(DEFINED CPython_DIRS)
      set(_cpython_report "    ${CPython_DIRS}: no python3 there\n")
    endif()
  endif()
  set(_cpython_need
    "CPython ${_cpython_oldest} or newer with its headers and a shared libpython")
  if(CPython_WANTED STREQUAL "")
    set(_cpython_what "${_cpython_need} is needed; none was found.")
  else()
    set(_cpython_what
      "SUBHOST_PYTHON=${CPython_WANTED} cannot be used. Needed is\n  ${_cpython_need}.")
  endif()
  unset(_cpython_paths)
  message(FATAL_ERROR
    "  ${_cpython_what}\n  Looked at:\n${_cpython_report}${_cpython_how}")
endif()

set(CPython_FOUND TRUE)
set(CPython_EXECUTABLE "${_cpython_chosen}")
set(CPython_VERSION "${_cpython_chosen_version}")
set(CPython_EXT_SUFFIX "${_cpython_chosen_ext_suffix}")
set(CPython_LDVERSION "${_cpython_chosen_ldversion}")
set(CPython_LIBRARY "${_cpython_chosen_library}")
set(CPython_INCLUDE_DIRS "${_cpython_chosen_include_dir}")
if(NOT _cpython_chosen_plat_include_dir STREQUAL ""
    AND NOT _cpython_chosen_plat_include_dir STREQUAL CPython_INCLUDE_DIRS)
  list(APPEND CPython_INCLUDE_DIRS "${_cpython_chosen_plat_include_dir}")
endif()
if(NOT CMAKE_SCRIPT_MODE_FILE)
  set(CPython_CHOICE "${CPython_WANTED}=${CPython_EXECUTABLE}" CACHE INTERNAL
    "the request and the interpreter chosen for it")
endif()

# An rpath is needed where the loader does not look by itself.
get_filename_component(_cpython_dir "${CPython_LIBRARY}" DIRECTORY)
set(CPython_RPATH "${_cpython_dir}")
foreach(_dir /lib /usr/lib /lib64 /usr/lib64)
  foreach(_sub "" "/${_cpython_chosen_multiarch}")
    if(_cpython_dir STREQUAL "${_dir}${_sub}")
      set(CPython_RPATH "")
    endif()
  endforeach()
endforeach()
# Debian's config directory holds links to the library in the loader's directory.
file(REAL_PATH "${CPython_LIBRARY}" _cpython_real)
if(_cpython_real MATCHES "^/(usr/)?lib(64)?(/${_cpython_chosen_multiarch})?/[^/]+$")
  set(CPython_RPATH "")
endif()

if(NOT CMAKE_SCRIPT_MODE_FILE AND NOT TARGET CPython::Embed)
  add_library(CPython::Embed INTERFACE IMPORTED)
  set_target_properties(CPython::Embed PROPERTIES
    INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${CPython_INCLUDE_DIRS}"
    INTERFACE_INCLUDE_DIRECTORIES "${CPython_INCLUDE_DIRS}"
    INTERFACE_LINK_LIBRARIES "${CPython_LIBRARY}")
endif()
unset(_cpython_paths)
if(NOT CPython_FIND_QUIETLY)
  message(STATUS
    "CPython ${CPython_VERSION}: ${CPython_EXECUTABLE}, ${CPython_LIBRARY}")
endif()
