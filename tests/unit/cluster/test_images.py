"""Which images there are, when one counts as changed, and how a node is handed one."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
import yaml

from e2e.cluster import addons, image_specs, node_config, node_images, package_settings
from e2e.cluster.errors import ClusterError
from e2e.cluster.image_specs import ImageSpec
from e2e.cluster.image_specs import image_specs as specs_of
from e2e.cluster.layout import REPOSITORY, Layout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one image `x` that is made from one folder."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x.Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "source" / "__pycache__").mkdir(parents=True)
    (tmp_path / "source" / "a.py").write_text("a = 1\n")
    monkeypatch.setattr(image_specs, "REPOSITORY", tmp_path)
    return tmp_path


def test_an_image_changes_with_each_thing_that_it_is_made_from_and_with_nothing_else(
    repository: Path,
) -> None:
    context = repository / "context"
    context.mkdir()
    (context / "model").write_text("weights")
    spec = ImageSpec("x", sources=("source",), contexts={"c": context}, needs_base=True)
    keys = [spec.key(base_key="1")]

    (repository / "source" / "__pycache__" / "a.pyc").write_text("cache")
    assert spec.key(base_key="1") == keys[0]

    (repository / "source" / "a.py").write_text("a = 2\n")
    keys.append(spec.key(base_key="1"))
    (repository / "source" / "b.py").write_text("")
    keys.append(spec.key(base_key="1"))
    (context / "model").write_text("other weights")
    keys.append(spec.key(base_key="1"))
    (repository / "images" / "x.Dockerfile").write_text("FROM scratch\nUSER 1\n")
    keys.append(spec.key(base_key="1"))
    keys.append(spec.key(base_key="2"))
    assert len(set(keys)) == len(keys)


def test_an_image_without_the_base_does_not_change_with_it(repository: Path) -> None:
    spec = ImageSpec("x", sources=("source",))
    assert spec.key(base_key="1") == spec.key(base_key="2")


def test_a_missing_input_is_named(repository: Path) -> None:
    with pytest.raises(ClusterError, match="nowhere is missing"):
        ImageSpec("x", sources=("nowhere",)).key(base_key="")


def test_every_image_has_a_dockerfile_and_sources_that_exist(tmp_path: Path) -> None:
    for spec in specs_of(Layout(tmp_path)).values():
        assert spec.dockerfile.is_file(), spec.name
        for source in spec.sources:
            assert (REPOSITORY / source).exists(), source


def test_every_copied_path_of_a_dockerfile_is_an_input_of_its_image(tmp_path: Path) -> None:
    """Else a change of it would not be seen, and an old image would be tested."""
    for spec in specs_of(Layout(tmp_path)).values():
        for line in spec.dockerfile.read_text().splitlines():
            words = line.split()
            if words[:1] != ["COPY"]:
                continue
            if words[1].startswith("--from="):
                origin = words[1].removeprefix("--from=")
                stages = {"requirements", "ours"}
                assert origin in stages or origin in spec.contexts, line
            else:
                for path in words[1:-1]:
                    assert any(path == s or path.startswith(f"{s}/") for s in spec.sources), line


def test_the_addons_run_only_images_that_up_brings() -> None:
    images = set()
    for addon in addons.ALL:
        for manifest in yaml.safe_load_all((addons.MANIFESTS / addon.file).read_text()):
            pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
            images |= {container["image"] for container in pod.get("containers", [])}
    assert images == {f"docker.io/paceline/{name}:dev" for name in ("coredns", "device-plugin", "prometheus")}
    assert {image.split("/")[-1].split(":")[0] for image in images} <= set(image_specs.CLUSTER_IMAGES)


def test_a_node_offers_as_many_gpus_as_its_label_says() -> None:
    manifest = yaml.safe_load((addons.MANIFESTS / addons.FAKE_GPUS.file).read_text())
    args = manifest["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args == [f"--count={node_config.GPU_LABELS['nvidia.com/gpu.count']}"]


def test_an_archive_names_the_image_and_holds_only_the_blobs_asked_for(tmp_path: Path) -> None:
    blobs = tmp_path / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def store(data: bytes) -> str:
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        return f"sha256:{name}"

    config, layer = store(b"{}"), store(b"layer")
    manifest = store(json.dumps({"config": {"digest": config}, "layers": [{"digest": layer}]}).encode())
    assert node_images._blobs_of(tmp_path, manifest) == [manifest, config, layer]

    sink = io.BytesIO()
    spec = ImageSpec("x")
    node_images._write_archive(sink, oci_layout=tmp_path, spec=spec, digest=manifest, blobs=[layer])
    sink.seek(0)
    with tarfile.open(fileobj=sink) as tar:
        assert set(tar.getnames()) == {"oci-layout", "index.json", f"blobs/{layer.replace(':', '/')}"}
        file = tar.extractfile("index.json")
        assert file is not None
        entry = json.load(file)["manifests"][0]
    assert entry["digest"] == manifest
    assert entry["annotations"] == {"io.containerd.image.name": "docker.io/paceline/x:dev"}


def test_a_build_step_uses_the_machines_own_package_index() -> None:
    env = {"PIP_INDEX_URL": "https://mirror.example/simple"}
    pip = package_settings.pip_conf("[global]\ntimeout = 7\n", env=env)
    assert "timeout = 7" in pip
    assert "index-url = https://mirror.example/simple" in pip
    assert f"cert = {package_settings.CERTIFICATES}" in pip
    assert 'url = "https://mirror.example/simple"' in package_settings.uv_toml(pip, env={})
    assert "index" not in package_settings.uv_toml(package_settings.pip_conf("", env={}), env={})
