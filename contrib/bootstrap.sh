#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# From a clean clone to a running demo or test suite; `contrib/bootstrap.sh --help` says how.
set -euo pipefail

build_dir=build/release preset=default # the preset's binary folder
readonly toolkit_dir=build/cuda-toolkit

usage() {
    cat <<'TEXT'
usage: contrib/bootstrap.sh demo|test|cuda [--no-install]
       contrib/bootstrap.sh test --full
       contrib/bootstrap.sh sanitize [asan|tsan]
       contrib/bootstrap.sh fuzz [SECONDS]
       contrib/bootstrap.sh chroot trixie|testing

  demo   build and run the demo: IVF against IVFGMM on the embedded data set, a table and demo.svg
  test   build everything with -Wall -Wextra -Werror and run all tests; ends with ctest's summary
         --full: then reading what is exported by PyPI's FAISS, which comes into build/faiss-wheel, the
         sanitizers, the fuzzer for a minute, and `chroot` with both releases
  cuda   build everything with the CUDA engine and run the tests of labels gpu (skipped without a GPU) and
         cuda; where nvcc 12.4 or newer is missing, a toolkit 13.0 comes from PyPI into build/cuda-toolkit
  sanitize  the tests under the address and undefined behaviour sanitizers (asan), those of threads under
         the thread sanitizer (tsan), or both
  fuzz   fuzz the parser of index files for SECONDS (default: 60) under sanitizers; fails on a finding,
         which lies in build/fuzz/tests/fuzz/findings then. The corpus grows from run to run
  chroot `test` of the tracked files within another release of Debian, so with its FAISS and its compiler. It is
         made once, by debootstrap from the mirror that apt uses, in FAISS_GMM_CHROOTS (default
         ~/.cache/faiss_gmm/chroots); remove its folder there and it is made anew. Needs root

What is missing is installed first, with apt on Debian 12 and 13 (through sudo unless you are root).

  --no-install   install nothing, build with what is there
  -h, --help     this text

CMAKE_BUILD_PARALLEL_LEVEL in the environment sets the number of compile jobs (default: all cores).
example: contrib/bootstrap.sh demo
TEXT
}

# fail DOING GIVEN ALLOWED NEXT: the four parts of every error message; exit status 2.
fail() {
    printf 'error: %s\n  given:   %s\n  allowed: %s\n  next:    %s\n' "$@" >&2
    exit 2
}

say() {
    printf '== %s\n' "$*"
}

# quietly LOG COMMAND...: output goes to LOG and is shown only if the command fails.
quietly() {
    local log=$1
    shift
    mkdir -p "$(dirname "$log")"
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 40 "$log" >&2
        printf 'error: failed: %s\n  log: %s\n' "$*" "$log" >&2
        exit 1
    fi
}

# os_release KEY: that value of /etc/os-release, empty where there is none.
os_release() {
    if [[ -r /etc/os-release ]]; then
        (
            # shellcheck source=/dev/null
            . /etc/os-release
            printf '%s' "${!1:-}"
        )
    fi
}

needed_packages() {
    if [[ $1 == chroot ]]; then
        echo debootstrap
        return
    fi
    if [[ $1 == wheel ]]; then
        printf '%s\n' python3 python3-pip
        return
    fi
    printf '%s\n' g++ cmake ninja-build ccache libfaiss-dev libopenblas-openmp-dev libhwy-dev \
        libfmt-dev libxxhash-dev libcli11-dev nlohmann-json3-dev libgtest-dev
    if [[ $1 == cuda ]]; then
        printf '%s\n' python3-pip
    fi
    if [[ $1 == fuzz || $1 == sanitize ]]; then
        printf '%s\n' clang libclang-rt-dev libomp-dev
    fi
    # The layout of the sources is defined by clang-format 14, which Debian 13 no longer has, and the
    # cross-compiled test was tried with Debian 12's tools: elsewhere both report themselves as skipped.
    if [[ $1 == test && $(os_release VERSION_ID) == 12 ]]; then
        printf '%s\n' clang-format-14 g++-aarch64-linux-gnu qemu-user
    fi
}

# missing_packages PACKAGE...: those that dpkg does not know as installed.
missing_packages() {
    local package
    for package in "$@"; do
        if [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) != installed ]]; then
            echo "$package"
        fi
    done
}

install_missing() {
    local packages=() missing=() as_root=() package
    while read -r package; do # not mapfile: bash 3.2 must reach the message below
        packages+=("$package")
    done < <(needed_packages "$1")
    if [[ $(os_release ID) != debian ]] || ! command -v apt-get >/dev/null; then
        fail "installing what the build needs" \
            "$(os_release PRETTY_NAME) ($(uname -s))" \
            "Debian 12 or 13 with apt" \
            "install your system's counterparts of: ${packages[*]}
           (a C++17 compiler, CMake 3.25, Ninja, FAISS 1.7.3 or newer, OpenBLAS built with OpenMP,
           Highway, fmt, xxHash, CLI11, nlohmann-json, GoogleTest), then add --no-install"
    fi
    while read -r package; do
        missing+=("$package")
    done < <(missing_packages "${packages[@]}")
    if ((${#missing[@]} == 0)); then
        return
    fi
    if ((EUID != 0)); then
        if ! command -v sudo >/dev/null; then
            fail "installing ${missing[*]}" "an ordinary user, and no sudo" "root, or a user of sudo" \
                "as root: apt-get install ${missing[*]}"
        fi
        as_root=(sudo)
    fi
    say "installing ${missing[*]}"
    # A new machine may still be busy with its own upgrades: wait for the lock.
    as_root+=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300)
    quietly build/logs/apt-update.log "${as_root[@]}" update
    quietly build/logs/apt-install.log "${as_root[@]}" install --no-install-recommends "${missing[@]}"
}

# nvcc_version NVCC: e.g. 13.0; empty if it does not run.
nvcc_version() {
    "$1" --version 2>/dev/null | sed -n 's/.*release \([0-9]*\.[0-9]*\).*/\1/p'
}

# new_enough VERSION: 12.4 or later.
new_enough() {
    local major=${1%%.*} minor=${1#*.}
    [[ -n $1 ]] && ((major > 12 || (major == 12 && minor >= 4)))
}

# Sets `nvcc` to one that is new enough: of the PATH, of /usr/local/cuda, or from PyPI.
find_nvcc() {
    local found version
    for found in "$(command -v nvcc || true)" /usr/local/cuda/bin/nvcc "$PWD/$toolkit_dir/bin/nvcc"; do
        if [[ -z $found || ! -x $found ]]; then
            continue
        fi
        version=$(nvcc_version "$found" || true) # empty: it does not run
        if new_enough "$version"; then
            nvcc=$found
            return
        fi
        if [[ -z $version ]]; then
            say "$found does not run: passing it over"
        else
            say "$found is of CUDA $version: too old for Hopper's matrix instructions (wgmma)"
        fi
    done
    if [[ $install == no ]]; then
        fail "looking for nvcc" "none of CUDA 12.4 or newer" "CUDA 12.4 or newer" \
            "leave out --no-install, or put a newer nvcc into PATH"
    fi
    install_toolkit
    nvcc=$PWD/$toolkit_dir/bin/nvcc
}

# NVIDIA's wheels of one minor version, side by side in one folder as nvcc and CMake expect them.
install_toolkit() {
    local folder
    say "installing the CUDA toolkit 13.0 from PyPI into $toolkit_dir"
    rm -rf "$toolkit_dir"
    mkdir -p "$toolkit_dir"
    quietly build/logs/cuda-toolkit.log python3 -m pip install --no-deps --target "$toolkit_dir/wheels" \
        'nvidia-cuda-nvcc==13.0.*' 'nvidia-cuda-crt==13.0.*' 'nvidia-nvvm==13.0.*' \
        'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cccl==13.0.*'
    # nvcc and CMake look for lib64, beside the bin where nvcc really is, and for names without a version.
    ln -sfn lib "$toolkit_dir/wheels/nvidia/cu13/lib64"
    ln -sfn libcudart.so.13 "$toolkit_dir/wheels/nvidia/cu13/lib/libcudart.so"
    for folder in "$toolkit_dir"/wheels/nvidia/cu13/*; do
        ln -sfn "wheels/nvidia/cu13/${folder##*/}" "$toolkit_dir/${folder##*/}"
    done
}

# build TARGET [CMAKE-OPTION...]; --fresh where the preset chooses the compiler: a folder that was configured with another
# path of it would lose the preset's flags without a word, and what is built is what was there.
build() {
    local target=$1 progress=()
    shift
    say "configuring $build_dir"
    quietly build/logs/configure.log cmake --preset "$preset" "$@"
    say "building $target"
    if [[ ! -t 1 ]]; then
        progress=(-- --quiet) # no line a file in logs; expanded so that bash 3.2 takes it empty
    fi
    cmake --build "$build_dir" --parallel "${CMAKE_BUILD_PARALLEL_LEVEL:-$(getconf _NPROCESSORS_ONLN)}" \
        --target "$target" ${progress[@]+"${progress[@]}"}
}

# fuzz SECONDS: in processes of five minutes, each going on from the corpus of the one before, for LLVM's OpenMP loses 176 bytes
# in each region of stock FAISS within one of ours where both have one thread (some KiB a run). Allocations must follow the bytes
# that are there (16 MiB a piece).
fuzz() {
    local folder=build/fuzz/tests/fuzz log=build/logs/fuzz.log left
    build_dir=build/fuzz preset=fuzz
    build lists_fuzzer --fresh
    quietly build/logs/fuzz-seeds.log "$folder/lists_seeds" "$folder/seeds"
    mkdir -p "$folder/corpus" "$folder/findings"
    say "fuzzing for $1 s"
    for ((left = $1; left > 0; left -= 300)); do
        quietly "$log" "$folder/lists_fuzzer" -max_total_time=$((left < 300 ? left : 300)) -max_len=16384 \
            -malloc_limit_mb=48 -rss_limit_mb=2048 -timeout=60 -detect_leaks=0 -print_final_stats=1 \
            -dict=tests/fuzz/lists.dict -artifact_prefix="$folder/findings/" "$folder/corpus" "$folder/seeds"
        grep -E '^#[0-9]+[[:space:]]+DONE|^stat::(number|peak)' "$log"
    done
    # Leaks are looked for once at the end: after each run that takes four fifths of the time.
    quietly build/logs/fuzz-replay.log "$folder/lists_replay" any "$folder/corpus"
}

# sanitize PRESET
sanitize() {
    build_dir=build/$1 preset=$1
    build all --fresh
    say "testing under $1"
    ctest --preset "$1"
}

# The mirror that apt takes Debian itself from.
debian_mirror() {
    apt-get indextargets --format '$(LABEL)|$(RELEASE)|$(REPO_URI)' 'Created-By: Packages' |
        awk -F '|' -v release="$(os_release VERSION_CODENAME)" \
            '($1 == "Debian" || $2 == release) && !found++ { print $3 }'
}

# make_chroot RELEASE FOLDER: that release of Debian, its base system alone.
make_chroot() {
    local release=$1 folder=$2 mirror
    mirror=$(debian_mirror)
    if [[ -z $mirror ]]; then
        fail "making a chroot of Debian $release" "no mirror of Debian in apt's sources" \
            "a mirror that has $release" "add one to /etc/apt/sources.list.d"
    fi
    say "making $folder"
    rm -rf --one-file-system "$folder.part"
    mkdir -p "$folder.part"
    quietly "build/logs/debootstrap-$release.log" \
        debootstrap --variant=minbase "$release" "$folder.part" "$mirror"
    # A mirror may be the copy of a day long past; its signatures are verified nevertheless.
    echo 'Acquire::Check-Valid-Until "false";' >"$folder.part/etc/apt/apt.conf.d/any-day"
    mv "$folder.part" "$folder" # it is there as a whole, or not
}

# within FOLDER COMMAND...: in that chroot, with little of this environment. /proc is mounted in a namespace
# that ends with the command, however it ends: no other process sees a mount in the folder, so none can remove
# what lies behind one.
within() {
    local folder=$1 kept=() name
    shift
    for name in CMAKE_BUILD_PARALLEL_LEVEL http_proxy https_proxy; do
        if [[ -n ${!name:-} ]]; then
            kept+=("$name=${!name}")
        fi
    done
    unshare --mount --pid --fork --kill-child --mount-proc="$folder/proc" \
        chroot "$folder" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
        ${kept[@]+"${kept[@]}"} "$@"
}

need_root() {
    if ((EUID != 0)); then
        fail "testing in a chroot" "an ordinary user" "root" "sudo contrib/bootstrap.sh $1"
    fi
}

# chroot_test RELEASE: `test` of the tracked files, as they are now, in that release of Debian.
chroot_test() {
    local release=$1 root=${FAISS_GMM_CHROOTS:-${XDG_CACHE_HOME:-$HOME/.cache}/faiss_gmm/chroots}/$1
    local sources=$root/root/faiss_gmm
    if [[ ! -d $root ]]; then
        make_chroot "$release" "$root"
    fi
    say "testing in $root"
    rm -rf --one-file-system "$sources" # what was compiled before is in the chroot's own ccache
    mkdir "$sources"
    git -c safe.directory="$PWD" ls-files -z | # of a checkout whose owner is not root
        tar --create --null --files-from=- --ignore-failed-read |
        tar --extract --directory "$sources"
    within "$root" /root/faiss_gmm/contrib/bootstrap.sh test
}

test_all() {
    build all -DFAISS_GMM_WERROR=ON
    say "testing"
    ctest --test-dir "$build_dir" -j2 --output-on-failure
}

# That FAISS's own wheel reads what export_faiss() makes: a test that is skipped elsewhere.
wheel_test() {
    local wheel=$PWD/build/faiss-wheel
    say "installing faiss-cpu from PyPI into ${wheel#"$PWD"/}, and reading what is exported"
    rm -rf "$wheel"
    quietly build/logs/faiss-wheel.log python3 -m pip install --target "$wheel" 'faiss-cpu==1.15.0'
    FAISS_GMM_WHEEL=$wheel "$build_dir/tests/io/io_test" --gtest_filter=ExportOf.IsReadByTheWheel
}

# Each in a shell of its own: they set where they build.
test_fully() {
    (test_all)
    (wheel_test)
    (sanitize asan)
    (sanitize tsan)
    (fuzz 60)
    (chroot_test trixie)
    (chroot_test testing)
}

# misplaced ARGUMENT: it is none, or not behind the command that takes it.
misplaced() {
    fail "reading the command line" "'$1'" \
        "demo, test [--full], cuda, sanitize [asan|tsan], fuzz [SECONDS], chroot trixie|testing,
           --no-install, --help" \
        "contrib/bootstrap.sh --help"
}

main() {
    local command='' operand='' install=yes argument
    for argument in "$@"; do
        case $argument in
        -h | --help)
            usage
            exit 0
            ;;
        --no-install) install=no ;;
        --full | trixie | testing | asan | tsan | [1-9]*)
            case "$command $argument" in
            'test --full' | 'chroot trixie' | 'chroot testing' | 'sanitize asan' | 'sanitize tsan') ;;
            *) [[ $command == fuzz && $argument != *[!0-9]* ]] || misplaced "$argument" ;;
            esac
            operand=$argument
            ;;
        demo | test | cuda | sanitize | fuzz | chroot)
            if [[ -n $command ]]; then
                fail "reading the command line" "$*" "one of: demo, test, cuda, sanitize, fuzz, chroot" \
                    "run contrib/bootstrap.sh once for each"
            fi
            command=$argument
            ;;
        *)
            misplaced "$argument"
            ;;
        esac
    done
    if [[ -z $command ]]; then
        fail "reading the command line" "no command" "demo, test, cuda, sanitize, fuzz, chroot" \
            "contrib/bootstrap.sh --help"
    fi
    if [[ $command == chroot && -z $operand ]]; then
        fail "reading the command line" "chroot without a release" "trixie, testing" \
            "contrib/bootstrap.sh chroot trixie"
    fi
    if [[ $command == chroot ]]; then
        need_root "chroot $operand"
    elif [[ $operand == --full ]]; then
        need_root "test --full" # before an hour of the rest
    fi

    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    if [[ $install == yes ]]; then
        install_missing "$command"
        if [[ $operand == --full ]]; then
            install_missing sanitize
            install_missing chroot
            install_missing wheel
        fi
    fi
    case $command in
    demo)
        build faiss_gmm_demo
        "$build_dir/bench/faiss_gmm_demo"
        ;;
    test)
        if [[ $operand == --full ]]; then
            test_fully
        else
            test_all
        fi
        ;;
    chroot) chroot_test "$operand" ;;
    cuda)
        build_dir=build/cuda preset=cuda
        find_nvcc
        build all -DCMAKE_CUDA_COMPILER="$nvcc"
        say "testing the CUDA engine"
        ctest --test-dir "$build_dir" -L '^(gpu|cuda)$' --output-on-failure
        ;;
    sanitize)
        for argument in ${operand:-asan tsan}; do
            sanitize "$argument"
        done
        ;;
    fuzz) fuzz "${operand:-60}" ;;
    esac
}

main "$@"
