"""Writes a model for llama.cpp that can talk: ``python tiny_model.py FILE``. It takes the package ``gguf``.

Its attention is nothing and its embeddings are one-hot, so that each token is followed by the one that the output
matrix says, for certain. What the chat template ends with chooses the first.
"""

from __future__ import annotations

import sys

import gguf
import numpy as np

WORDS = ["▁air", "▁scatters", "▁blue", "▁light", "▁on", "▁and", "<tool_call>"]
FOLLOWS = {
    "1": "▁air",
    "▁air": "▁scatters",
    "▁scatters": "▁blue",
    "▁blue": "▁light",
    "▁light": "</s>",
    "2": "▁on",
    "▁on": "▁and",
    "▁and": "▁on",
    # What a call holds is up to the grammar that llama.cpp makes of the tool; after its end comes the answer's.
    "3": "<tool_call>",
    "<tool_call>": "<0x0A>",
    "}": "<",
    ">": "</s>",
}
# It names the form of a call, which llama.cpp looks for. "for ever" in the question is answered without end.
TEMPLATE = r"""
{%- if tools %}system: call these by <tool_call>{"name": ..., "arguments": ...}</tool_call>
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}{% endif %}
{%- for message in messages %}{{ message.role }}: {% if message.content %}{{ message.content }}{% endif %}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}
{% endfor %}
{%- if add_generation_prompt %}
{%- if tools %}3{% elif 'for ever' in messages[-1].content %}2{% else %}1{% endif %}
{%- endif %}"""


def write(path: str) -> None:
    special = ["<unk>", "<s>", "</s>"]
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = [*special, *byte_tokens, *map(chr, range(33, 127)), "▁", *WORDS]
    kinds = [
        gguf.TokenType.UNKNOWN,
        *[gguf.TokenType.CONTROL] * 2,
        *[gguf.TokenType.BYTE] * len(byte_tokens),
    ]
    kinds += [gguf.TokenType.NORMAL] * (len(tokens) - len(kinds))
    width, inner = -(-len(tokens) // 32) * 32, 32

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(8192)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(width)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)

    output = np.zeros((len(tokens), width), np.float32)
    for token, following in FOLLOWS.items():
        output[tokens.index(following), tokens.index(token)] = 10
    tensors = {
        "token_embd": np.eye(len(tokens), width, dtype=np.float32),
        "output": output,
        "output_norm": np.ones(width, np.float32),
        "blk.0.attn_norm": np.ones(width, np.float32),
        "blk.0.ffn_norm": np.ones(width, np.float32),
        **{f"blk.0.attn_{name}": np.zeros((width, width), np.float32) for name in ("q", "k", "v", "output")},
        **{f"blk.0.ffn_{name}": np.zeros((inner, width), np.float32) for name in ("gate", "up")},
        "blk.0.ffn_down": np.zeros((width, inner), np.float32),
    }
    for name, tensor in tensors.items():
        writer.add_tensor(f"{name}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write(sys.argv[1])
