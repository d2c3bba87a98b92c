#!/usr/bin/env bash
# Prepares Vulkan drivers in a folder of their own, for measuring and for looking at compiled kernels: nothing is
# installed, nothing outside the folder changes, no root rights are needed. Packages come from the mirror that apt is
# configured with, their signatures checked by apt. tests/drivers/README.md tells what the drivers are for.
#
# Usage: tests/drivers/prepare.sh [--refresh] DIR [NAME...]
#   names: stock mesa25 mesa26 swiftshader radv nvk turnip honeykrisp intel; none: all of them
#   --refresh: prepares again what is there already
# Then DIR/bin/run-NAME PROGRAM ARGUMENTS runs a program on a driver. It may be started again at any time: what is done
# is kept, downloads go on where they stopped.
set -euo pipefail

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
names_known="stock mesa25 mesa26 swiftshader radv nvk turnip honeykrisp intel"

say() { echo "prepare.sh: $*" >&2; }
die() {
    say "$*"
    exit 2
}

refresh=
while [[ ${1:-} == -* ]]; do
    case $1 in
        --refresh) refresh=1 ;;
        --help | -h)
            sed -n '2,/^set/{/^#/s/^# \?//p}' "$0"
            exit 0
            ;;
        *) die "unknown option '$1'; see --help" ;;
    esac
    shift
done
[[ $# -ge 1 ]] || die "which folder? usage: prepare.sh [--refresh] DIR [NAME...]"
mkdir -p "$1/bin"
dir=$(cd "$1" && pwd)
shift
read -r -a names <<<"${*:-$names_known}"
for name in "${names[@]}"; do
    [[ " $names_known " == *" $name "* ]] || die "unknown driver '$name'; wanted some of: $names_known"
done
[[ $(uname -m) == x86_64 ]] || die "the wrappers start programs of x86-64, and this machine is $(uname -m)"
for tool in apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || die "$tool is not there: this takes Debian's packages apart with Debian's tools"
done
[[ -r $keyring ]] || die "$keyring is not there, by which packages are checked: install debian-archive-keyring"

# ---- packages ----

# The mirror that apt is configured with, and Debian's own where it has none of Debian.
mirror_of() { # debian or debian-security
    local found
    # shellcheck disable=SC2016 # apt's own placeholder
    found=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | sed 's,/*$,,' | grep -m1 "/$1\$" || true)
    echo "${found:-http://deb.debian.org/$1}"
}

# An apt of its own: sources, lists, cache and an empty list of installed packages below $dir/apt/STATE.
apt_write() { # STATE LINE...
    local state=$dir/apt/$1
    shift
    mkdir -p "$state/state" "$state/lists/partial" "$state/cache/archives/partial"
    : >"$state/status"
    printf '%s\n' "$@" >"$state/sources.list"
    cat >"$state/apt.conf" <<END
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
Dir::Etc::SourceList "$state/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$state/state";
Dir::State::Status "$state/status";
Dir::State::Lists "$state/lists";
Dir::Cache "$state/cache";
APT::Sandbox::User "";
APT::Architecture "amd64";
APT::Architectures "amd64";
APT::Install-Recommends "false";
APT::Get::Assume-Yes "true";
Acquire::Languages "none";
Acquire::Retries "3";
END
}

apt_do() { # STATE ARGUMENTS of apt-get
    local state=$dir/apt/$1
    shift
    apt-get -qq -c "$state/apt.conf" "$@" >>"$state/log" 2>&1 || {
        tail -n 5 "$state/log" >&2
        say "apt-get $1 failed; all it said is in $state/log"
        return 1
    }
}

debs_of() { # STATE: what was downloaded
    find "$dir/apt/$1/cache/archives" -maxdepth 1 -name '*.deb' | sort
}

# Downloads packages with all they depend on.
fetch_packages() { # STATE SUITE PACKAGE...
    local state=$1 suite=$2
    shift 2
    say "$state: packages of $suite: $*"
    apt_do "$state" update
    apt_do "$state" install --download-only -t "$suite" "$@"
    say "$state: $(debs_of "$state" | wc -l) packages, $(debs_of "$state" | xargs du -shc | tail -n 1 | cut -f 1)"
}

# Unpacks what was downloaded into a fresh tree, without what no program reads, and puts it in place as a whole.
unpack() { # STATE TREE
    local deb new=$2.new
    rm -rf "$new"
    mkdir -p "$new"
    debs_of "$1" | sed 's,.*/,,; s,_amd64.deb$,,; s,_all.deb$,,; s,%3a,:,' >"$new/packages.txt"
    for deb in $(debs_of "$1"); do
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$new" --exclude='./usr/share/doc/*' \
            --exclude='./usr/share/locale/*' --exclude='./usr/share/man/*' --exclude='./usr/share/gcc/*' \
            --exclude='./var/*' --exclude='./etc/*' --no-same-owner
    done
    rm -rf "$2"
    mv "$new" "$2"
    debs_of "$1" | xargs -r rm -f
    say "$1: unpacked into $2, $(du -sh "$2" | cut -f 1)"
}

version_in() { # TREE PACKAGE
    sed -n "s/^$2_//p" "$1/packages.txt"
}

ready() { # TREE: it is there and need not be made again
    [[ -z $refresh && -e $1/packages.txt ]]
}

# ---- wrappers ----

put_wrapper() { # NAME, text on standard input
    { echo '#!/usr/bin/env bash' && cat; } >"$dir/bin/.$1.new"
    chmod +x "$dir/bin/.$1.new"
    mv "$dir/bin/.$1.new" "$dir/bin/$1"
    say "wrote $dir/bin/$1"
}

# A program that is started by the tree's own loader, so that it has the tree's C library, which may be newer than the
# system's. Programs that it starts need the wrapper, too.
put_tree_wrapper() { # NAME TREE ICD [PRELOADED LIBRARY] [VARIABLE=VALUE...]
    local name=$1 tree=$2 icd=$2/usr/share/vulkan/icd.d/$3 preload=${4:+--preload $2/usr/lib/x86_64-linux-gnu/$4}
    local variable
    [[ -e $icd ]] || die "$name: $icd is not in the packages"
    [[ -z ${4:-} || -e $tree/usr/lib/x86_64-linux-gnu/$4 ]] || die "$name: $4 is not in the packages"
    shift $(($# < 4 ? $# : 4))
    # shellcheck disable=SC2016 # it is the wrapper that expands
    {
        echo "# Runs a program on the Vulkan driver $name; made by tests/drivers/prepare.sh. Its children need this, too."
        echo "export VK_DRIVER_FILES='$icd' VK_ICD_FILENAMES='$icd'"
        for variable; do echo "export $variable"; done
        echo 'program=$(command -v -- "$1") || { echo "'"$name"': no program $1" >&2; exit 127; }'
        echo 'shift'
        echo "exec '$(loader_of "$tree")' --library-path '$tree/usr/lib/x86_64-linux-gnu' $preload \"\$program\" \"\$@\""
    } | put_wrapper "run-$name"
}

loader_of() { # TREE
    local loader
    for loader in "$1"/lib64/ld-linux-x86-64.so.2 "$1"/usr/lib64/ld-linux-x86-64.so.2; do
        [[ -e $loader ]] && echo "$loader" && return 0
    done
    die "no loader in $1"
}

# ---- the drivers ----

# Mesa of trixie-backports in a tree with everything it needs, and the shims that let its GPU drivers open without a GPU.
mesa26_tree() {
    ready "$dir/mesa26" && return 0
    apt_write mesa26 "deb [signed-by=$keyring] $(mirror_of debian) trixie main" \
        "deb [signed-by=$keyring] $(mirror_of debian) trixie-backports main"
    fetch_packages mesa26 trixie-backports mesa-vulkan-drivers mesa-drm-shim libvulkan1 libstdc++6 libc6
    unpack mesa26 "$dir/mesa26"
}

prepare_stock() {
    local icd
    for icd in /usr/share/vulkan/icd.d/lvp_icd*.json; do :; done
    if [[ ! -e $icd ]]; then
        not_prepared stock "the system has no CPU driver: apt-get install mesa-vulkan-drivers"
        return
    fi
    put_wrapper run-stock <<END
# Runs a program on the system's CPU driver; made by tests/drivers/prepare.sh.
export VK_DRIVER_FILES='$icd' VK_ICD_FILENAMES='$icd'
exec "\$@"
END
}

# Debian 12's backport, for the system's own C library, which is of Debian 12 or newer.
prepare_mesa25() {
    local tree=$dir/mesa25 icd
    if ! ready "$tree"; then
        apt_write mesa25 "deb [signed-by=$keyring] $(mirror_of debian) bookworm main" \
            "deb [signed-by=$keyring] $(mirror_of debian) bookworm-backports main"
        fetch_packages mesa25 bookworm-backports mesa-vulkan-drivers
        debs_of mesa25 | grep -E '/(libc6|libgcc-s1|libstdc\+\+6|gcc-12-base|libcrypt1)_' | xargs -r rm -f
        unpack mesa25 "$tree"
    fi
    for icd in "$tree"/usr/share/vulkan/icd.d/lvp_icd*.json; do :; done
    put_wrapper run-mesa25 <<END
# Runs a program on the CPU driver of Mesa $(version_in "$tree" mesa-vulkan-drivers); made by tests/drivers/prepare.sh.
export VK_DRIVER_FILES='$icd' VK_ICD_FILENAMES='$icd'
export LD_LIBRARY_PATH='$tree/usr/lib/x86_64-linux-gnu'\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
exec "\$@"
END
}

prepare_mesa26() {
    mesa26_tree
    put_tree_wrapper mesa26 "$dir/mesa26" lvp_icd.json
}

# Two libraries of Chromium: SwiftShader, and a validation layer that is newer than Debian 12's.
prepare_swiftshader() {
    local tree=$dir/chromium library=/usr/lib/chromium deb
    if ! ready "$tree"; then
        apt_write chromium "deb [signed-by=$keyring] $(mirror_of debian) bookworm main" \
            "deb [signed-by=$keyring] $(mirror_of debian-security) bookworm-security main"
        say "chromium: the package chromium-common"
        apt_do chromium update
        (cd "$dir/apt/chromium/cache/archives" && apt_do chromium download chromium-common)
        deb=$(debs_of chromium | tail -n 1)
        rm -rf "$tree"
        mkdir -p "$tree"
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$tree" --no-same-owner ".$library/libvk_swiftshader.so" \
            ".$library/libVkLayer_khronos_validation.so"
        basename "$deb" _amd64.deb >"$tree/packages.txt"
        rm -f "$deb"
        say "chromium: unpacked into $tree, $(du -sh "$tree" | cut -f 1)"
    fi
    cat >"$tree/swiftshader.json" <<END
{"file_format_version": "1.0.0", "ICD": {"library_path": "$tree$library/libvk_swiftshader.so", "api_version": "1.3.0"}}
END
    mkdir -p "$tree/layers"
    cat >"$tree/layers/validation.json" <<END
{"file_format_version": "1.1.0", "layer": {"name": "VK_LAYER_KHRONOS_validation", "type": "GLOBAL",
 "library_path": "$tree$library/libVkLayer_khronos_validation.so", "api_version": "1.3.290",
 "implementation_version": "1", "description": "validation",
 "instance_extensions": [{"name": "VK_EXT_debug_utils", "spec_version": "1"},
                         {"name": "VK_EXT_validation_features", "spec_version": "2"}]}}
END
    put_wrapper run-swiftshader <<END
# Runs a program on SwiftShader of Chromium $(version_in "$tree" chromium-common); made by tests/drivers/prepare.sh.
export VK_DRIVER_FILES='$tree/swiftshader.json' VK_ICD_FILENAMES='$tree/swiftshader.json'
exec "\$@"
END
    put_wrapper run-validation <<END
# Runs a program on the system's driver with storage buffers, its synchronization checked by the Khronos layer; made by
# tests/drivers/prepare.sh.
export VK_LAYER_PATH='$tree/layers' TERRANE_VALIDATE=abort TERRANE_DISABLE=address
export VK_VALIDATION_VALIDATE_SYNC=1 VK_VALIDATION_SYNCVAL_SHADER_ACCESSES_HEURISTIC=1
exec "\$@"
END
}

# Compile only: the driver believes that a GPU is there; work that is submitted never runs.
prepare_radv() {
    local shim=libamdgpu_noop_drm_shim.so
    mesa26_tree
    put_tree_wrapper rdna2 "$dir/mesa26" radeon_icd.json $shim AMDGPU_GPU_ID=navi21
    put_tree_wrapper rdna3 "$dir/mesa26" radeon_icd.json $shim AMDGPU_GPU_ID=navi31
    put_tree_wrapper rdna4 "$dir/mesa26" radeon_icd.json $shim AMDGPU_GPU_ID=gfx1201
}

prepare_nvk() {
    local shim=libnouveau_noop_drm_shim.so
    mesa26_tree
    put_tree_wrapper turing "$dir/mesa26" nouveau_icd.json $shim NOUVEAU_CHIPSET=160
    put_tree_wrapper ampere "$dir/mesa26" nouveau_icd.json $shim NOUVEAU_CHIPSET=172
}

prepare_turnip() {
    local shim=libfreedreno_noop_drm_shim.so
    mesa26_tree
    put_tree_wrapper adreno660 "$dir/mesa26" freedreno_icd.json $shim FD_GPU_ID=660
    put_tree_wrapper adreno740 "$dir/mesa26" freedreno_icd.json $shim FD_GPU_ID=740
}

prepare_honeykrisp() {
    mesa26_tree
    put_tree_wrapper m1 "$dir/mesa26" asahi_icd.json libasahi_noop_drm_shim.so
}

missing=()
not_prepared() { # NAME WHY
    say "$1: not prepared: $2"
    missing+=("$1")
}

# Debian packs no shim for Intel: it is built, alone, from the sources of trixie's Mesa with tools that are unpacked, not
# installed. The compiler, python3 and pkg-config are the system's.
intel_tools=(meson/trixie python3-mako/bookworm python3-markupsafe/bookworm python3-yaml/bookworm bison/bookworm
    flex/bookworm m4/bookworm ninja-build/bookworm libdrm-dev/bookworm libdrm2/bookworm libdrm-intel1/bookworm
    libexpat1-dev/bookworm libexpat1/bookworm zlib1g-dev/bookworm zlib1g/bookworm)

intel_download() {
    apt_write intel "deb [signed-by=$keyring] $(mirror_of debian) bookworm main" \
        "deb [signed-by=$keyring] $(mirror_of debian) trixie main" \
        "deb-src [signed-by=$keyring] $(mirror_of debian) trixie main"
    say "intel: Mesa's sources and ${#intel_tools[@]} packages to build its shim with"
    apt_do intel update && cd "$dir/apt/intel/cache/archives" && apt_do intel download "${intel_tools[@]}" &&
        apt_do intel source --download-only mesa/trixie
}

intel_build() { # TREE: a fresh folder
    local tools=$1/tools log=$dir/apt/intel/log off=disabled deb
    mkdir -p "$tools" "$1/mesa"
    for deb in $(debs_of intel); do dpkg-deb -x "$deb" "$tools"; done
    tar -x -C "$1/mesa" --strip-components=1 -f "$dir"/apt/intel/cache/archives/mesa_*.orig.tar.xz
    export PATH=$tools/usr/bin:$PATH PYTHONPATH=$tools/usr/lib/python3/dist-packages
    export BISON_PKGDATADIR=$tools/usr/share/bison M4=$tools/usr/bin/m4 PKG_CONFIG_SYSROOT_DIR=$tools
    export PKG_CONFIG_LIBDIR=$tools/usr/lib/x86_64-linux-gnu/pkgconfig:$tools/usr/share/pkgconfig
    say "intel: building the shim takes some minutes; $log tells how far it is"
    {
        python3 "$tools/usr/bin/meson" setup "$1/build" "$1/mesa" -Dtools=drm-shim,intel -Dgallium-drivers= \
            -Dvulkan-drivers= -Dplatforms= -Dvideo-codecs= -Dopengl=false -Dbuild-tests=false -Dbuildtype=release \
            -Dglx=$off -Degl=$off -Dgbm=$off -Dgles1=$off -Dgles2=$off -Dllvm=$off -Dzstd=$off -Dvalgrind=$off \
            -Dlibunwind=$off -Dlmsensors=$off -Dxmlconfig=$off &&
            nice ninja -C "$1/build" src/intel/tools/libintel_noop_drm_shim.so &&
            cp "$1/build/src/intel/tools/libintel_noop_drm_shim.so" "$1/"
    } >>"$log" 2>&1
}

prepare_intel() {
    local tree=$dir/intel tool shim=libintel_noop_drm_shim.so
    for tool in cc c++ python3 pkg-config; do
        command -v "$tool" >/dev/null || { not_prepared intel "its shim must be built, and there is no $tool" && return; }
    done
    mesa26_tree
    if ! ready "$tree"; then
        (intel_download) || { not_prepared intel "no sources or tools to build its shim from" && return; }
        rm -rf "$tree"
        (intel_build "$tree") || { not_prepared intel "its shim does not build; see $dir/apt/intel/log" && return; }
        rm -rf "$tree/tools" "$tree/mesa" "$tree/build"
        find "$dir/apt/intel/cache/archives" -maxdepth 1 -name 'mesa_*.dsc' -printf '%f\n' |
            sed 's,.dsc$,,' >"$tree/packages.txt"
        find "$dir/apt/intel/cache/archives" -maxdepth 1 -type f ! -name lock -delete
    fi
    # in one step: programs may be running on the old one
    cp "$tree/$shim" "$dir/mesa26/usr/lib/x86_64-linux-gnu/.$shim"
    mv "$dir/mesa26/usr/lib/x86_64-linux-gnu/.$shim" "$dir/mesa26/usr/lib/x86_64-linux-gnu/$shim"
    put_tree_wrapper dg2 "$dir/mesa26" intel_icd.json $shim INTEL_STUB_GPU_PLATFORM=dg2
}

for name in "${names[@]}"; do
    "prepare_$name"
done
say "ready: $(find "$dir/bin" -name 'run-*' -printf '%f\n' | sort | tr '\n' ' ')($(du -sh "$dir" | cut -f 1) in all)"
[[ ${#missing[@]} -eq 0 ]] || say "not prepared: ${missing[*]}"
