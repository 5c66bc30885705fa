"""`spec.runtime`: the container of an engine pod. Read by the fleet (pod template) and by `paceline
serve`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from paceline.api.base import (
    QUALIFIED_NAME,
    ApiModel,
    LocalObjectReference,
    ObjectName,
    Rule,
    list_atomic,
    list_map,
    rules,
    says,
)
from paceline.api.quantity import Quantity, bytes_of

SWITCH_ARGS = (
    "async-scheduling",
    "no-async-scheduling",
    "disable-cascade-attn",
    "enable-auto-tool-choice",
    "enable-expert-parallel",
    "enable-force-include-usage",
    "enable-prompt-tokens-details",
    "enforce-eager",
    "language-model-only",
)
VALUE_ARGS = (
    "attention-backend",
    "chat-template",
    "chat-template-content-format",
    "default-chat-template-kwargs",
    "dtype",
    "generation-config",
    "limit-mm-per-prompt",
    "long-prefill-token-threshold",
    "max-logprobs",
    "moe-backend",
    "override-generation-config",
    "reasoning-parser",
    "seed",
    "tokenizer-mode",
    "tool-call-parser",
)
"""Arguments of vLLM 0.32 that change neither the shape, nor the memory, nor the routes: those have fields of
their own."""

EXTRA_ARG_PATTERN = rf"^--({'|'.join(SWITCH_ARGS)}|({'|'.join(VALUE_ARGS)})=.+)$"

DEFAULT_STEP_MS = 10
"""of an emulated engine without a timing table"""

RESERVED_ENV = (
    "HOME",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "HF_TOKEN",
    "POD_IP",
    "POD_NAME",
    "POD_NAMESPACE",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "VLLM_PLUGINS",
    "VLLM_CPU_KVCACHE_SPACE",
    "VLLM_CPU_OMP_THREADS_BIND",
    "OMP_NUM_THREADS",
    "VLLM_HOST_IP",
    "VLLM_NO_USAGE_STATS",
    "VLLM_PORT",
)
"""What Paceline or the device plugin sets. Beside these, every name that begins with PACELINE_."""

_RESERVED_ENV_CEL = ", ".join(f"'{name}'" for name in RESERVED_ENV)


class KeySelector(ApiModel):
    """A key of a Secret or ConfigMap of the namespace."""

    name: ObjectName = Field(description="Name of the object, in the namespace of the service.")
    key: Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")] = (
        Field(description="Key in the object.")
    )
    optional: bool = Field(default=False, description="Whether the pod starts without it.")


class EnvVarSource(ApiModel):
    """Where the value comes from."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                cel="has(self.secretKeyRef) != has(self.configMapKeyRef)",
                message="write one of valueFrom.secretKeyRef and valueFrom.configMapKeyRef",
            )
        )
    )

    secret_key_ref: KeySelector | None = Field(default=None, description="A key of a Secret.")
    config_map_key_ref: KeySelector | None = Field(default=None, description="A key of a ConfigMap.")


class EnvVar(ApiModel):
    """A variable of the environment."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                cel="has(self.value) != has(self.valueFrom)",
                message="write either value or valueFrom of a variable",
            ),
            Rule(
                cel=f"!(self.name in [{_RESERVED_ENV_CEL}]) && !self.name.startsWith('PACELINE_')",
                field_path=".name",
                message="Paceline sets this variable itself: leave it out (the token for hf:// goes to "
                "spec.model.secretRef)",
            ),
        )
    )

    name: Annotated[
        str,
        StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$"),
        Field(json_schema_extra=says("write letters, digits and '_', not beginning with a digit")),
    ] = Field(description="Name of the variable. Those that Paceline sets, and PACELINE_*, are refused.")
    value: Annotated[str, StringConstraints(max_length=4096)] | None = Field(
        default=None, description="The value, as text."
    )
    value_from: EnvVarSource | None = Field(
        default=None, description="Where the value comes from, in place of `value`."
    )


ResourceName = Annotated[str, StringConstraints(max_length=317, pattern=QUALIFIED_NAME)]


class Resources(ApiModel):
    """Requests and limits of a container (as in a pod)."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                cel="self.requests.all(name, !(name in self.limits) || "
                "!isQuantity(string(self.requests[name])) || !isQuantity(string(self.limits[name])) || "
                "!quantity(string(self.requests[name])).isGreaterThan(quantity(string(self.limits[name]))))",
                field_path=".requests",
                message="more is requested than the limit allows: write requests up to the limits",
            )
        )
    )

    requests: Annotated[dict[ResourceName, Quantity], Field(max_length=16)] = Field(
        default_factory=dict, description="What the container is promised."
    )
    limits: Annotated[dict[ResourceName, Quantity], Field(max_length=16)] = Field(
        default_factory=dict, description="What the container may use at most."
    )


TimingName = Annotated[str, StringConstraints(max_length=63, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]


class EmulatedGpu(ApiModel):
    """Names one of the timing tables that ship with Paceline."""

    gpu: TimingName = Field(description="The GPU, such as h200.")
    model: TimingName = Field(description="The model, such as llama-3.1-70b.")
    format: Literal["bf16", "fp8", "mxfp4"] = Field(description="The format of its weights.")


class Emulation(ApiModel):
    """An engine that keeps time instead of computing."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                cel="!has(self.timing) || !has(self.stepMilliseconds)",
                field_path=".stepMilliseconds",
                message="a timing table says how long each step takes: leave it out, or leave timing out",
            )
        )
    )

    timing: EmulatedGpu | None = Field(
        default=None,
        description="Steps take what the timing table of this GPU says, at the tensor-parallel size of the "
        "pod: batching, chunked prefill, KV cache limits and preemption as vLLM has them. Absent: each step "
        "takes stepMilliseconds.",
    )
    step_milliseconds: Annotated[int, Field(ge=1, le=60_000)] | None = Field(
        default=None,
        description="Time of one engine step: the time per output token. Absent: 10, or what timing says.",
    )
    start_seconds: Annotated[int, Field(ge=0, le=3600)] = Field(
        default=1, description="Time from the start of the container to Ready."
    )

    @property
    def constant_step_milliseconds(self) -> int | None:
        """None where a table says it."""
        if self.timing is not None:
            return None
        return DEFAULT_STEP_MS if self.step_milliseconds is None else self.step_milliseconds


class Runtime(ApiModel):
    """The container of an engine pod."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                cel="!has(self.maxBatchedTokens) || self.maxBatchedTokens >= self.maxSequences",
                field_path=".maxBatchedTokens",
                message="a step must take a token of every sequence: write at least "
                "spec.runtime.maxSequences",
            ),
            Rule(
                cel="!has(self.emulation) || self.extraArgs.size() == 0",
                field_path=".extraArgs",
                message="the emulated engine has no vLLM to pass them to: leave them out",
            ),
        )
    )

    image: Annotated[str, StringConstraints(max_length=512, pattern=r"^[^\s]*$")] = Field(
        default="",
        description="Image of the engine pods. Empty: the one that the operator was installed with for this "
        "accelerator; a later upgrade of the operator does not change the pods that run.",
    )
    image_pull_secrets: Annotated[tuple[LocalObjectReference, ...], Field(max_length=8)] = Field(
        default=(), description="Secrets to pull the image with.", json_schema_extra=list_map("name")
    )
    resources: Resources = Field(
        default_factory=Resources,
        description="CPU and memory of the engine container. The accelerator itself follows from "
        "tensorParallelSize; sharedMemorySize is added to the memory.",
    )
    shared_memory_size: Quantity = Field(
        default="2Gi",
        description="Size of /dev/shm, which the processes of a replica talk through. It counts as memory "
        "of the pod.",
        json_schema_extra=rules(
            Rule(
                cel="type(self) == int ? self >= 67108864 : (!isQuantity(self) || "
                "!quantity(self).isLessThan(quantity('64Mi')))",
                message="too small: write 64Mi or more",
            )
        ),
    )
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64)] = Field(
        default=(), description="Variables for the engine container.", json_schema_extra=list_map("name")
    )
    max_sequences: Annotated[int, Field(ge=1, le=8192)] = Field(
        default=256, description="Requests that run at once in a replica."
    )
    max_batched_tokens: Annotated[int, Field(ge=16, le=1_048_576)] | None = Field(
        default=None,
        description="Tokens of one engine step: a smaller chunk of prefill gives smoother gaps between "
        "tokens and a later first token. Absent: vLLM's own choice.",
    )
    extra_args: Annotated[
        tuple[
            Annotated[
                str,
                StringConstraints(min_length=3, max_length=1024, pattern=EXTRA_ARG_PATTERN),
                Field(
                    json_schema_extra={
                        **rules(
                            Rule(
                                cel="!self.matches('(?i)^--(quantization|load-format)[= "
                                "]?.*(gguf|bitsandbytes)')",
                                message="GGUF and bitsandbytes are gone from vLLM: use "
                                "spec.model.quantization with a safetensors checkpoint",
                            )
                        ),
                        **says(
                            "not an argument that may be passed: write one of --"
                            + ", --".join((*SWITCH_ARGS, *(f"{name}=…" for name in VALUE_ARGS)))
                            + "; the rest has a field of its own, or would change routes, memory or shape"
                        ),
                    }
                ),
            ],
            ...,
        ],
        Field(max_length=32),
    ] = Field(
        default=(),
        description="Further arguments of vLLM, each as one item: --flag or --flag=value. Allowed: --"
        + ", --".join((*SWITCH_ARGS, *(f"{name}=" for name in VALUE_ARGS)))
        + ".",
        json_schema_extra=list_atomic(),
    )
    emulation: Emulation | None = Field(
        default=None,
        description="Serve canned text at this pace from an emulated engine: the same routes, drain and "
        "metrics without a model, for tests of everything around it. Status and metrics then say so.",
    )

    @property
    def shared_memory_bytes(self) -> int:
        return bytes_of(self.shared_memory_size)
