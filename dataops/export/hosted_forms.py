"""The formats that managed fine-tuning takes, each with the limits that its documentation states, and where.

A limit is here only where a page of the service or its own client says it; what is not stated is not checked. Sizes
said in MB or GB are read as powers of ten, the stricter reading. Where a page and a client differ, the stricter one
stands. Not here: formats whose rules could not be found in writing, images, audio, and prompt-completion text forms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Stage = Literal["sft", "dpo", "rft"]

OPENAI_NAME = r"[a-zA-Z0-9_-]{1,64}"


@dataclass(frozen=True)
class Form:
    """One format. `None` is "no limit is stated"; examples and bytes are of one file, tokens of one example."""

    name: str
    stage: Stage
    sources: tuple[str, ...]
    shape: Literal["chat", "gemini", "converse"] = "chat"
    min_examples: int = 1
    max_examples: int | None = None
    max_bytes: int | None = None
    max_tokens: int | None = None
    bom: bool = False  # files start with a byte-order mark
    system_role: Literal["system", "developer"] = "system"  # two names of one role
    system_first: bool = False  # at most one, before all else
    starts_with_user: bool = False  # after the system message
    #: "tools": after a tool message comes a tool or an assistant message. "strict": user and assistant alternate, too.
    order: Literal["free", "tools", "strict"] = "free"
    tools: bool = True
    max_tools: int | None = None
    tool_name: str = OPENAI_NAME
    tools_declared: bool = False  # every function that is called stands in `tools`
    tools_full: bool = False  # a function always has a description and parameters
    strict_tools: bool = False  # a function may have the key `strict`
    content_with_calls: bool = True
    call_id: str | None = None
    names: bool = False  # messages may name who speaks
    weights: bool = False  # an assistant message may have the weight 0 or 1
    reserved: tuple[str, ...] = ()  # texts that no message may hold
    answer: str | None = None  # what the grader's reference must be called


_OPENAI = Form(
    name="openai",
    stage="sft",
    sources=(
        # At least 10 examples.
        "https://developers.openai.com/api/docs/guides/supervised-fine-tuning",
        # Keys and roles of a line; `weight` 0 or 1; at most 128 functions; names of functions.
        "https://github.com/openai/openai-openapi (FineTuneChatRequestInput, FunctionObject)",
        # Up to 512 MB a file.
        "https://platform.openai.com/docs/api-reference/files/create",
    ),
    min_examples=10,
    max_bytes=512_000_000,
    max_tools=128,
    strict_tools=True,
    names=True,
)
#: 65,536 tokens an example, longer ones lose their end: the token limits of the fine-tuning guide for gpt-4o models.
_OPENAI_TOKENS = 65_536
_AZURE = replace(
    _OPENAI,
    bom=True,
    sources=(
        # UTF-8 with a byte-order mark, below 512 MB, at least 10 examples.
        "https://learn.microsoft.com/azure/ai-foundry/openai/how-to/fine-tuning",
        "https://github.com/openai/openai-openapi (FineTuneChatRequestInput, FunctionObject)",
    ),
)
_DPO_PAGE = "https://developers.openai.com/api/docs/guides/direct-preference-optimization"
_AZURE_PAGE = "https://learn.microsoft.com/azure/ai-foundry/openai/how-to/"

_TOGETHER = Form(
    name="together",
    stage="sft",
    sources=(
        # Starts with system or user, then alternates; weights 0 and 1; exactly one message in each output.
        "https://docs.together.ai/docs/fine-tuning/data-preparation",
        # At least one sample, at most 50.1 GB (the page says 100).
        "PyPI together 3.1.1: together/lib/constants.py",
    ),
    max_bytes=int(50.1 * 2**30),
    system_first=True,
    order="strict",
)

_FIREWORKS = Form(
    name="fireworks",
    stage="sft",
    # 3 to 3 million examples; the system message first; weight 0 or 1; functions as OpenAI has them.
    sources=("https://docs.fireworks.ai/fine-tuning/fine-tuning-models",),
    min_examples=3,
    max_examples=3_000_000,
    system_first=True,
)

_MISTRAL = Form(
    name="mistral-sft",
    stage="sft",
    sources=(
        # 9-character ids; calls without content; after a tool message an assistant one; all tools declared.
        "https://docs.mistral.ai/capabilities/finetuning/text_finetuning",
        # 512 MB a file, any number of files in a job.
        "https://docs.mistral.ai/guides/finetuning (FAQ)",
        # Names, ids and weights; functions with description and parameters; one system message.
        "PyPI mistral-common 1.13.1: MistralRequestValidatorV3; mistralai/mistral-finetune: finetune/data/tokenize.py",
    ),
    max_bytes=512_000_000,
    system_first=True,
    order="tools",
    tools_declared=True,
    tools_full=True,
    content_with_calls=False,
    call_id=r"[a-zA-Z0-9]{9}",
    weights=True,
)

_VERTEX_PAGE = "https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/tuning/"
_VERTEX = Form(
    name="vertex",
    stage="sft",
    shape="gemini",
    sources=(
        # Shape of a line; 131,072 tokens an example; 1 GB a file; 10 million examples.
        _VERTEX_PAGE + "supervised-tuning/prepare-data",
        "https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/gemini-supervised-tuning",
        # Names of functions, keywords of a schema, results of functions as turns of the user.
        "PyPI google-genai 3.4.0: google/genai/types.py, chats.py",
    ),
    max_bytes=1_000_000_000,
    max_examples=10_000_000,
    max_tokens=131_072,
    system_first=True,
    tool_name=r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}",
    tools_declared=True,
)

_NOVA = Form(
    name="bedrock-sft",
    stage="sft",
    shape="converse",
    sources=(
        # User first, assistant last, words that fail a job.
        "https://docs.aws.amazon.com/nova/latest/userguide/fine-tune-prepare-data-understanding.html",
        # No tools.
        "https://docs.aws.amazon.com/bedrock/latest/userguide/nova-2-sft-data-prep.html",
        # 8 to 20,000 examples, alternating turns, the whole list of words.
        "https://github.com/aws-samples/amazon-bedrock-samples (nova_ft_dataset_validator.py)",
    ),
    min_examples=8,
    max_examples=20_000,
    system_first=True,
    starts_with_user=True,
    order="strict",
    tools=False,
    reserved=(
        "System:", "SYSTEM:", "User:", "USER:", "Bot:", "BOT:", "Assistant:", "ASSISTANT:", "Thought:", "[EOS]",
        "<image>", "<video>",
    ),
)  # fmt: skip

FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        replace(_OPENAI, name="openai-sft", weights=True, max_tokens=_OPENAI_TOKENS),
        replace(
            _OPENAI, name="openai-dpo", stage="dpo", max_tokens=_OPENAI_TOKENS, sources=(_DPO_PAGE, *_OPENAI.sources)
        ),
        # The last message is the user's; messages and tools are the only reserved keys.
        replace(
            _OPENAI,
            name="openai-rft",
            stage="rft",
            system_role="developer",
            sources=(
                "https://github.com/openai/openai-openapi (FineTuneReinforcementRequestInput)",
                _AZURE_PAGE + "reinforcement-fine-tuning",
                *_OPENAI.sources,
            ),
        ),
        replace(_AZURE, name="azure-sft", weights=True),
        replace(
            _AZURE,
            name="azure-dpo",
            stage="dpo",
            sources=(_AZURE_PAGE + "fine-tuning-direct-preference-optimization", *_AZURE.sources),
        ),
        replace(
            _AZURE,
            name="azure-rft",
            stage="rft",
            system_role="developer",
            sources=(_AZURE_PAGE + "reinforcement-fine-tuning", *_AZURE.sources),
        ),
        replace(_TOGETHER, name="together-sft", starts_with_user=True, weights=True),
        replace(_TOGETHER, name="together-dpo", stage="dpo"),
        replace(_FIREWORKS, name="fireworks-sft", weights=True),
        replace(
            _FIREWORKS,
            name="fireworks-dpo",
            stage="dpo",
            sources=("https://docs.fireworks.ai/fine-tuning/dpo-fine-tuning",),
        ),
        replace(
            _FIREWORKS,
            name="fireworks-rft",
            stage="rft",
            min_examples=1,
            max_examples=None,
            sources=("https://docs.fireworks.ai/fine-tuning/reinforcement-fine-tuning-models",),
        ),
        _MISTRAL,
        replace(_VERTEX, name="vertex-sft"),
        # Text only, no tools; the prompt ends with the user's turn; prompt and longer answer within the tokens.
        replace(
            _VERTEX,
            name="vertex-dpo",
            stage="dpo",
            tools=False,
            sources=(
                _VERTEX_PAGE + "preference-tuning/prepare-data",
                "https://docs.cloud.google.com/vertex-ai/generative-ai/docs/models/gemini-preference-tuning",
            ),
        ),
        replace(
            _VERTEX,
            name="vertex-rft",
            stage="rft",
            max_examples=5_000,
            max_tokens=32_768,
            sources=(_VERTEX_PAGE + "reinforcement-tuning/reinforcement-tuning-job/tuning-dataset", _VERTEX.sources[2]),
        ),
        _NOVA,
        # Prompts in OpenAI's format with a reference_answer; roles system, user, assistant.
        Form(
            name="bedrock-rft",
            stage="rft",
            sources=("https://docs.aws.amazon.com/bedrock/latest/userguide/rft-prepare-data-open-weight.html",),
            min_examples=100,
            max_examples=20_000,
            tools=False,
            answer="reference_answer",
        ),
    )
}
