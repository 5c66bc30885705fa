"""`spec.model`: which weights, under which names, in which format, with how much KV cache.

Read by the fleet (pod template) and by `paceline serve`. What depends on the checkpoint itself (heads,
quantization groups, memory) is not known here: `paceline_core.fit` judges it where the checkpoint can be
read.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from paceline.api.base import ApiModel, LocalObjectReference, ObjectName, Rule, list_set, rules, says
from paceline.api.quantity import Quantity, bytes_of

WeightsFormat = Literal["Auto", "None", "FP8", "INT8", "INT4"]
WeightsSource = Literal["Auto", "Checkpoint", "Online"]
KvCacheDtype = Literal["Auto", "FP8"]
Switch = Literal["Enabled", "Disabled"]

URI_RULES = (
    Rule(
        cel="self.matches('^(hf|pvc|s3|bundled)://')",
        message="unknown scheme: write hf://org/name@revision, pvc://claim/path, s3://bucket/path or "
        "bundled://smollm2-135m-instruct",
    ),
    Rule(
        cel="!self.matches('(?i)([.]gguf|^hf://[^@]*-gguf(@.*)?)$')",
        message="GGUF checkpoints are not served (vLLM dropped the format): write the uri of the "
        "safetensors checkpoint that the GGUF file was made from, and set spec.model.quantization for a "
        "small one",
    ),
    Rule(
        cel="!self.startsWith('hf://') || self.matches('^hf://[^@]*@')",
        message="a revision is missing: write hf://org/name@main, or a commit in place of main",
    ),
    Rule(
        cel="!self.matches('^hf://[^@]*@') || "
        "self.matches('^hf://[A-Za-z0-9][-A-Za-z0-9_.]*/[A-Za-z0-9][-A-Za-z0-9_.]*@[A-Za-z0-9][-A-Za-z0-9_./]*$')",
        message="not a model of the Hub: write hf://org/name@revision",
    ),
    Rule(
        cel="!self.startsWith('pvc://') || "
        "(self.matches('^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9_.][-A-Za-z0-9_./]*$') && "
        "!self.matches('(/|^)[.][.](/|$)'))",
        message="not a path in a claim: write pvc://claim/path, with the folder that holds config.json",
    ),
    Rule(
        cel="!self.startsWith('s3://') || self.matches('^s3://[a-z0-9][-a-z0-9.]{1,61}[a-z0-9]/[^ ]+$')",
        message="not a path in a bucket: write s3://bucket/path, with the folder that holds config.json",
    ),
    Rule(
        cel="!self.startsWith('bundled://') || self == 'bundled://smollm2-135m-instruct'",
        message="no such bundled model: write bundled://smollm2-135m-instruct",
    ),
)

WEIGHTS_GONE = Rule(
    cel="!self.matches('(?i)^(gguf|bitsandbytes|bnb.*|nf4|sparse.*|2:4)$')",
    message="GGUF, bitsandbytes and sparsity are gone from vLLM: write FP8, INT8 or INT4 with a "
    "compressed-tensors checkpoint, or Auto to take the checkpoint as it is",
)

ServedName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][-A-Za-z0-9_./:]*$"),
    Field(json_schema_extra=says("write letters, digits and - _ . / : beginning with a letter or digit")),
]


class Quantization(ApiModel):
    """The number format of the weights."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                cel="self.source != 'Online' || self.weights == 'FP8'",
                field_path=".source",
                message="Online quantizes at load and exists for FP8 alone: write weights: FP8, or source: "
                "Checkpoint with a checkpoint that holds this format",
            ),
            Rule(
                cel="self.source != 'Checkpoint' || self.weights != 'None'",
                field_path=".source",
                message="Checkpoint has nothing to read with weights: None: write source: Auto",
            ),
        )
    )

    weights: Annotated[
        WeightsFormat,
        Field(
            json_schema_extra={
                **says("write Auto, None, FP8, INT8 or INT4"),
                **rules(WEIGHTS_GONE),
            }
        ),
    ] = Field(
        default="Auto",
        description="Format of the weights: Auto (as the checkpoint has them), None (16 bit), FP8 (Hopper "
        "and later), INT8 (W8A8; the format that is faster on a CPU) or INT4 (W4A16).",
    )
    source: WeightsSource = Field(
        default="Auto",
        description="Where the format comes from: Checkpoint (already quantized), Online (vLLM quantizes at "
        "load; FP8 only) or Auto (the checkpoint if it holds the format, else at load).",
    )


class KvCache(ApiModel):
    """The memory of the running requests."""

    dtype: KvCacheDtype = Field(
        default="Auto",
        description="Format of the KV cache: Auto (that of the model) or FP8 (twice the tokens in the same "
        "memory; on a CPU it needs AVX-512 or AMX).",
    )
    size: Quantity = Field(
        default="4Gi",
        description="KV cache of one GPU (of one process where resourceName is cpu). The engine takes "
        "exactly this much beside the weights, never the rest of the node.",
        json_schema_extra=rules(
            Rule(
                cel="type(self) == int ? self >= 67108864 : (!isQuantity(self) || "
                "!quantity(self).isLessThan(quantity('64Mi')))",
                message="too small to hold a request: write 64Mi or more, such as 4Gi",
            )
        ),
    )
    prefix_caching: Switch = Field(
        default="Enabled",
        description="Whether prompts that begin alike share the KV cache of their beginning.",
    )

    @property
    def size_bytes(self) -> int:
        return bytes_of(self.size)


class PersistentVolumeClaimCache(ApiModel):
    """A claim of the namespace."""

    claim_name: ObjectName = Field(description="Name of the claim, in the namespace of the service.")


class ModelCache(ApiModel):
    """Where downloaded weights stay between pods."""

    persistent_volume_claim: PersistentVolumeClaimCache = Field(
        description="The claim that is mounted as the download cache. All pods of the service write to it, "
        "so it must be ReadWriteMany unless they share a node."
    )


class Model(ApiModel):
    """The weights and how they are held."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                cel="!has(self.cache) || self.uri.startsWith('hf://')",
                field_path=".cache",
                message="only downloads of hf:// are cached: leave it out",
            ),
            Rule(
                cel="!has(self.secretRef) || self.uri.startsWith('hf://')",
                field_path=".secretRef",
                message="it holds the token for hf:// alone: leave it out; credentials for s3:// go to "
                "spec.runtime.env as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY with "
                "valueFrom.secretKeyRef",
            ),
            Rule(
                cel="!self.uri.startsWith('bundled://') || self.quantization.weights != 'INT4'",
                field_path=".quantization.weights",
                message="the bundled model comes in 16 bit and INT8: write None or INT8",
            ),
            Rule(
                cel="!self.uri.startsWith('bundled://') || self.maxModelTokens <= 8192",
                field_path=".maxModelTokens",
                message="the bundled model was made for 8192 tokens: write 8192 or less",
            ),
        )
    )

    uri: Annotated[str, StringConstraints(min_length=1, max_length=512)] = Field(
        description="Where the weights come from: hf://org/name@revision, pvc://claim/path, "
        "s3://bucket/path or bundled://smollm2-135m-instruct (a small model inside the runtime image). A "
        "branch such as @main is resolved once; the commit stands in status.model.revision.",
        json_schema_extra=rules(*URI_RULES),
    )
    served_names: Annotated[tuple[ServedName, ...], Field(max_length=8)] = Field(
        default=(),
        description="Names that clients write as `model`. The first is the one in answers. Empty: the name "
        "of the service.",
        json_schema_extra=list_set(),
    )
    secret_ref: LocalObjectReference | None = Field(
        default=None,
        description="Secret whose key `token` holds the access token for hf://.",
    )
    quantization: Quantization = Field(
        default_factory=Quantization, description="The number format of the weights."
    )
    kv_cache: KvCache = Field(default_factory=KvCache, description="The memory of the running requests.")
    max_model_tokens: Annotated[int, Field(ge=16, le=16_777_216)] = Field(
        default=8192,
        description="Longest sequence (prompt and output together) that the engine is set up for.",
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Run Python code that comes with the checkpoint. Only for publishers that you trust as "
        "you trust your own.",
    )
    cache: ModelCache | None = Field(
        default=None,
        description="Where downloaded weights stay between pods. Absent: every pod downloads them for "
        "itself.",
    )
