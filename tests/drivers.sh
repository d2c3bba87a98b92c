#!/usr/bin/env bash
# The tests on more than the system's driver: SwiftShader (storage buffers only), and the storage-buffer build under
# synchronization validation, which needs a validation layer newer than Debian 12's. Both come with the package
# chromium-common. Usage: tests/drivers.sh [build folder] [ctest arguments]; the tests must be built.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/release}
shift || true
dir=$(mktemp -d)
failed=0
trap 'rm -rf "$dir"' EXIT

library() { # name: its path in chromium-common
    dpkg -L chromium-common 2>/dev/null | grep "/$1\$" || {
        echo "drivers.sh: $1 is not there: apt-get install chromium-common" >&2
        exit 1
    }
}

swiftshader=$(library libvk_swiftshader.so)
layer=$(library libVkLayer_khronos_validation.so)
cat >"$dir/swiftshader.json" <<END
{"file_format_version": "1.0.0", "ICD": {"library_path": "$swiftshader", "api_version": "1.3.0"}}
END
mkdir "$dir/layers"
cat >"$dir/layers/validation.json" <<END
{"file_format_version": "1.1.0", "layer": {"name": "VK_LAYER_KHRONOS_validation", "type": "GLOBAL",
 "library_path": "$layer", "api_version": "1.3.290", "implementation_version": "1", "description": "validation",
 "instance_extensions": [{"name": "VK_EXT_debug_utils", "spec_version": "1"},
                         {"name": "VK_EXT_validation_features", "spec_version": "2"}]}}
END

echo "== SwiftShader"
VK_DRIVER_FILES="$dir/swiftshader.json" VK_ICD_FILENAMES="$dir/swiftshader.json" \
    ctest --test-dir "$build" --output-on-failure "$@" || failed=1

echo "== synchronization validation, storage buffers"
VK_LAYER_PATH="$dir/layers" TERRANE_VALIDATE=abort TERRANE_DISABLE=address VK_VALIDATION_VALIDATE_SYNC=1 \
    VK_VALIDATION_SYNCVAL_SHADER_ACCESSES_HEURISTIC=1 ctest --test-dir "$build" --output-on-failure "$@" || failed=1
exit $failed
