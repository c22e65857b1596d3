"""Constrained beam search in PyTorch: the counterpart of `measure queries`.

The text encoder and the cross-attentions' keys and values are computed once per query; beams are
query positions of the cross-attentions; self-attention is cached; the trie is a table of offsets on
the device, and all beams of all queries move through it together. Probabilities are normalised over
the children of a prefix.

Answers are compared with those that `measure dump` wrote before anything is timed.
"""

import json
import os
import sys

from common import emit, imported, need, parser, repeat, times, torch_with_threads

import cart_torch
from cart_torch import HIDDEN, Cart, load_weights, read_batch, safetensors_file

torch = cart_torch.torch
numpy = need("numpy")


class Trie:
    """Identifiers as one node table per level; the children of a node lie behind each other."""

    def __init__(self, identifiers, device):
        order = numpy.lexsort(identifiers.T[::-1])
        rows = identifiers[order]
        n, levels = rows.shape
        self.tokens, self.first, self.most = [], [], []
        starts = numpy.zeros(1, dtype=numpy.int64)  # The first row of every node of the level above.
        changed = numpy.zeros(n, dtype=bool)
        changed[0] = True
        for level in range(levels):
            changed[1:] |= rows[1:, level] != rows[:-1, level]
            below = numpy.flatnonzero(changed)
            first = numpy.searchsorted(below, numpy.append(starts, n))
            self.first.append(torch.from_numpy(first).to(device))
            self.most.append(int(numpy.diff(first).max()))
            self.tokens.append(torch.from_numpy(rows[below, level].astype(numpy.int64)).to(device))
            starts = below
        if len(starts) != n:
            sys.exit("identifiers are not distinct")
        self.items = torch.from_numpy(order).to(device)

    def children(self, level, nodes):
        """(nodes below, their tokens, which exist), each [.., most children]."""
        first = self.first[level][nodes]
        offsets = torch.arange(self.most[level], device=nodes.device)
        below = first[..., None] + offsets
        exist = below < self.first[level][nodes + 1][..., None]
        below = torch.where(exist, below, 0)
        return below, self.tokens[level][below], exist


class Search(torch.nn.Module):
    """One network and one trie."""

    def __init__(self, model, trie, compiled=False):
        super().__init__()
        self.model, self.trie = model, trie
        if compiled:
            self.encode = torch.compile(self.encode)
            self.decode = torch.compile(self.decode)

    def encode(self, tokens, padding):
        """Keys and values for every layer, and the bias of the padding."""
        bias = self.model.bias(padding)
        outputs = self.model.encoder(tokens, bias)
        return self.model.decoder.memory(outputs), bias

    def decode(self, level, x, caches, memories, bias, expert_bias):
        """Logits of a level, and the caches with this token.

        x: [queries, width, d]; caches: per layer two of [queries * width, heads, level, d_head].
        """
        queries, width, d = x.shape
        rows = queries * width
        grown = []
        for index, (layer, memory) in enumerate(zip(self.model.decoder.layers, memories)):
            own = x.reshape(rows, 1, d)
            key, value = layer.self_attention.key_value(own)
            if level > 0:
                key = torch.cat([caches[index][0], key], 2)
                value = torch.cat([caches[index][1], value], 2)
            grown.append((key, value))
            attended = layer.self_attention(own, (key, value), None)
            x = layer.fuse(x + attended.view(queries, width, d), memory, bias, expert_bias)
        return self.model.decoder.heads[level](x), grown

    @torch.inference_mode()
    def forward(self, tokens, padding, beam):
        """Items and scores of the best candidates, [queries, up to beam]."""
        decoder, trie = self.model.decoder, self.trie
        queries, device = len(tokens), tokens.device
        memories, bias = self.encode(tokens, padding)
        expert_bias = bias.repeat(decoder.experts, 1, 1, 1)
        nodes = torch.zeros(queries, 1, dtype=torch.int64, device=device)
        scores = torch.zeros(queries, 1, device=device)
        x = decoder.start.expand(queries, 1, -1)
        caches = []
        row = torch.arange(queries, device=device)[:, None]
        for level, position in enumerate(decoder.positions):
            logits, caches = self.decode(level, x + position, caches, memories, bias, expert_bias)
            below, token, exist = trie.children(level, nodes)
            log_p = logits.float().gather(2, token).masked_fill(~exist, HIDDEN * 1e3)
            log_p = log_p.log_softmax(2)
            total = (scores[..., None] + log_p).masked_fill(~exist, float("-inf")).flatten(1)
            width = min(beam, total.shape[1])
            scores, chosen = total.topk(width, 1)
            parent = chosen // trie.most[level]
            nodes = below.flatten(1).gather(1, chosen)
            # A beam without a prefix keeps a score of minus infinity whatever follows.
            if level + 1 < len(decoder.positions):
                old = caches[0][0].shape[0] // queries
                rows = (row * old + parent).flatten()
                caches = [(key[rows], value[rows]) for key, value in caches]
                x = decoder.embeddings[level](token.flatten(1).gather(1, chosen))
        return trie.items[nodes], scores


def main():
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("folder", help="what `measure dump` wrote")
    arguments.add_argument("--batch", type=int, default=32)
    arguments.add_argument("--beam", type=int, default=20)
    arguments.add_argument("--tokens", type=int, help="tokens of a query; as dumped without it")
    arguments.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ..")
    arguments.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    arguments.add_argument("--compile", action="store_true", help="torch.compile")
    args = arguments.parse_args()
    torch_with_threads(args.threads)
    imported()
    try:
        device = torch.device(args.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        sys.exit(f"device {args.device}: {error}; pass --device cpu")
    cuda = device.type == "cuda"
    with open(os.path.join(args.folder, "reference.json")) as file:
        reference = json.load(file)
    config = reference["config"]
    saved = safetensors_file(os.path.join(args.folder, "search.safetensors"))
    levels = len(config["vocabulary"])
    identifiers = saved["identifiers"].view(-1, levels).numpy().astype(numpy.int32)
    trie = Trie(identifiers, device)
    model = Cart({**config, "dropout": 0.0})
    load_weights(model, os.path.join(args.folder, "weights.safetensors"))
    model = model.to(device).eval()

    search = Search(model, trie)
    batch, _ = read_batch(args.folder, reference, device)
    if reference["training"]["loss"]["scope"] == "legal":
        items, scores = search(batch.tokens, batch.padding, reference["beam"])
        expected = saved["items"].view(len(items), -1).to(device)
        same = float((items.sort(1)[0] == expected.long().sort(1)[0]).float().mean())
        off = float((scores - saved["scores"].to(device)).abs().max())
        if same < 0.98 or off > 1e-3:
            sys.exit(f"not the same search: {same:.2%} of the answers agree, scores within {off:.1e}")

    search = Search(model, trie, args.compile)
    tokens = args.tokens or reference["tokens"]
    generator = torch.Generator().manual_seed(args.seed)
    texts = [
        torch.randint(1, config["text_vocabulary"], (args.batch, tokens), generator=generator)
        for _ in range(args.warmup + args.steps)
    ]
    padding = torch.zeros(args.batch, tokens, dtype=torch.bool, device=device)
    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    found = []
    if cuda:
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.cuda.reset_peak_memory_stats(device)

    def run(repetition):
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            items, scores = search(texts[repetition].to(device), padding, args.beam)
        # An answer is one that has arrived.
        found[:] = [items.cpu(), scores.cpu()]

    seconds = repeat(run, args.warmup, args.steps)
    emit(
        "torch",
        {
            "measure": "queries",
            "version": torch.__version__,
            "device": torch.cuda.get_device_name(device) if cuda else "cpu",
            "threads": torch.get_num_threads(),
            "dtype": args.dtype,
            "compiled": args.compile,
            "answers": int(torch.isfinite(found[1]).sum()),
            "peak_device_mib": torch.cuda.max_memory_allocated(device) / 2**20 if cuda else None,
            "settings": {
                "candidates": len(identifiers), "beam": args.beam, "batch": args.batch,
                "tokens": tokens, "width": config["d_model"],
                "encoder_layers": config["encoder_layers"],
                "decoder_layers": config["decoder_layers"], "fusion": config["fusion"],
                "levels": config["vocabulary"],
            },
            **times(seconds, args.batch),
        },
    )


if __name__ == "__main__":
    main()
