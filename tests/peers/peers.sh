#!/usr/bin/env bash
# Terrane beside PyTorch (encoders, a step of training) and OpenBLAS (matrix products) on the processor, in turns in one
# run: medians and ratios. Needs python3-torch, python3-numpy and libopenblas0-openmp of the distribution.
#
#   tests/peers/peers.sh --terrane build/release/terrane
#   tests/peers/peers.sh --terrane "WRAPPER build/release/terrane" --only 'product-*,mae-vit-base-1'
#   tests/peers/peers.sh --terrane build/release/terrane --ncnn ./ncnn-peer --only 'ncnn-*'
#
# The last one is against ncnn's Vulkan kernels on the same driver; ncnn.c says how its program is built.
#
# The peer gets its best environment, as far as this script can know it:
#  - OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE are unset: where they are preset, OpenBLAS may take kernels of an older core
#  - OpenBLAS's OpenMP flavour, when it is there: PyTorch then has one pool of threads instead of two that spin against
#    each other. With another flavour waiting threads are told to sleep, as they would take the processor from Terrane
#  - one thread a core (OMP_NUM_THREADS, when set), and AVX-512 where the processor has it
# Terrane's processes get none of this. For a quiet comparison let nothing else run.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE OPENBLAS_NUM_THREADS
export PEERS_LIBRARY_PATH=${LD_LIBRARY_PATH:-}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
grep -qs avx512f /proc/cpuinfo && export ATEN_CPU_CAPABILITY=avx512

openmp=
for folder in /usr/lib/*/openblas-openmp; do
    [ -e "$folder/libopenblas.so.0" ] && openmp=$folder
done
if [ -n "$openmp" ]; then
    export LD_LIBRARY_PATH=$openmp${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    unset OMP_WAIT_POLICY GOMP_SPINCOUNT
else
    echo "peers.sh: no OpenMP flavour of OpenBLAS (package libopenblas0-openmp): the peer may be slower than it could" >&2
    export OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0 OPENBLAS_THREAD_TIMEOUT=4
fi

python=${PYTHON:-/usr/bin/python3}
if ! "$python" -c 'import torch, numpy' 2>/dev/null; then
    echo "peers.sh: $python has no PyTorch: install python3-torch, or name another Python by PYTHON=" >&2
    exit 1
fi
exec "$python" -B "$here/peers.py" "$@"
