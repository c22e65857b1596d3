"""The network of this library in PyTorch, written anew: the counterpart of `measure train-step`.

Loads weights, batch and reference values that `measure dump` wrote, and refuses to time anything
before loss, gradient norms and the losses of the first training steps agree.

    cargo run --release -p cart-lab --bin measure -- dump --to /tmp/dump --shortest 8
    python benches/peers/cart_torch.py /tmp/dump
"""

import json
import math
import os
import sys

from common import emit, imported, need, parser, repeat, status, times, torch_with_threads

HIDDEN = -3e4  # What is added to the score of a key that must not be seen.
ILLEGAL = -3e4  # The logit of a token that is no child of the prefix.
TOLERANCE = 1e-4  # Relative, on loss and gradient norms.
# On the loss after updates: Adam's first steps divide gradients by themselves, those that are
# mere rounding too, so 32-bit trainings part slowly.
TRAINED_TOLERANCE = 1e-3

torch = need("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402


class Attention(nn.Module):
    """Multi-head attention, probabilities dropped after the softmax."""

    manual = False  # Matrix products and a softmax instead of torch's own attention.

    def __init__(self, width, context, heads, dropout):
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context, width)
        self.value = nn.Linear(context, width)
        self.output = nn.Linear(width, width)
        self.heads, self.dropout = heads, dropout

    def split(self, joined):
        """[batch, n, width] to [batch, heads, n, width / heads]."""
        batch, n, width = joined.shape
        return joined.view(batch, n, self.heads, width // self.heads).transpose(1, 2)

    def key_value(self, context):
        return self.split(self.key(context)), self.split(self.value(context))

    def queries(self, x):
        return self.split(self.query(x))

    def attend(self, queries, key_value, bias):
        """Attention of [batch, heads, n, d_head] queries, joined to [batch, n, width]."""
        key, value = key_value
        dropout = self.dropout if self.training else 0.0
        if self.manual:
            scores = queries * queries.shape[-1] ** -0.5 @ key.transpose(-1, -2) + bias
            attended = F.dropout(scores.softmax(-1), dropout, self.training) @ value
        else:
            attended = F.scaled_dot_product_attention(queries, key, value, bias, dropout)
        batch, heads, n, d_head = attended.shape
        return attended.transpose(1, 2).reshape(batch, n, heads * d_head)

    def forward(self, x, key_value, bias):
        return self.output(self.attend(self.queries(x), key_value, bias))


class FeedForward(nn.Module):
    def __init__(self, width, inner, dropout):
        super().__init__()
        self.inner = nn.Linear(width, inner)
        self.outer = nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        return self.outer(self.dropout(F.relu(self.inner(x))))


class EncoderLayer(nn.Module):
    """Pre-norm."""

    def __init__(self, width, inner, heads, dropout):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, width, heads, dropout)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, inner, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, bias):
        normed = self.attention_norm(x)
        x = x + self.dropout(self.attention(normed, self.attention.key_value(normed), bias))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class TextEncoder(nn.Module):
    """Hands out every layer's output through a norm of its own."""

    def __init__(self, c):
        super().__init__()
        width, inner, heads, dropout = c["d_model"], c["d_ff"], c["n_heads"], c["dropout"]
        self.tokens = nn.Embedding(c["text_vocabulary"], width)
        self.positions = nn.Embedding(c["max_tokens"], width)
        self.layers = nn.ModuleList(
            EncoderLayer(width, inner, heads, dropout) for _ in range(c["encoder_layers"])
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(c["encoder_layers"]))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens, bias):
        x = self.dropout(self.tokens(tokens) + self.positions.weight[: tokens.shape[1]])
        outputs = []
        for layer, norm in zip(self.layers, self.norms):
            x = layer(x, bias)
            outputs.append(norm(x))
        return outputs


class CoarseFusion(nn.Module):
    """All encoder layers projected to one memory."""

    def __init__(self, experts, context, width):
        super().__init__()
        self.projection = nn.Linear(experts * context, width)

    def forward(self, outputs):
        return self.projection(torch.cat(outputs, -1))


class GatedAttention(nn.Module):
    """sigmoid(W A + b) * A with A the cross-attention to the coarse memory."""

    def __init__(self, width, heads, dropout):
        super().__init__()
        self.attention = Attention(width, width, heads, dropout)
        self.gate = nn.Linear(width, width)

    def forward(self, y, key_value, bias):
        attended = self.attention(y, key_value, bias)
        return torch.sigmoid(self.gate(attended)) * attended


class FineFusion(nn.Module):
    """sum_i sigmoid(W_i [Y; C_i] + b_i) * C_i / sqrt(S), the experts as one batch."""

    def __init__(self, experts, context, width, heads, dropout):
        super().__init__()
        self.attention = Attention(width, context, heads, dropout)
        self.gate_query = nn.Linear(width, experts * width)
        self.gate_context = nn.Parameter(torch.empty(experts, width, width))

    def forward(self, y, key_value, bias):
        batch, n, width = y.shape
        experts = self.gate_context.shape[0]
        queries = self.attention.queries(y).repeat(experts, 1, 1, 1)
        attended = self.attention.attend(queries, key_value, bias)
        context = self.attention.output(attended).view(experts, batch * n, width)
        from_query = self.gate_query(y).view(batch * n, experts, width).transpose(0, 1)
        alpha = torch.sigmoid(torch.baddbmm(from_query, context, self.gate_context))
        return ((alpha * context).sum(0) / math.sqrt(experts)).view(batch, n, width)


class DecoderLayer(nn.Module):
    """Post-norm: FFN(norm(Y + A' + F))."""

    def __init__(self, c):
        super().__init__()
        width, heads, dropout = c["d_model"], c["n_heads"], c["dropout"]
        experts, fusion = c["encoder_layers"], c["fusion"]
        self.self_attention = Attention(width, width, heads, dropout)
        self.self_norm = nn.LayerNorm(width)
        self.plain = Attention(width, width, heads, dropout) if fusion == "none" else None
        coarse, fine = fusion in ("coarse", "both"), fusion in ("fine", "both")
        self.coarse = GatedAttention(width, heads, dropout) if coarse else None
        self.fine = FineFusion(experts, width, width, heads, dropout) if fine else None
        self.fusion_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, c["d_ff"], dropout)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def memory(self, outputs, joined, coarse):
        """Keys and values of the query: (plain, coarse, fine)."""
        return (
            self.plain.key_value(outputs[-1]) if self.plain else None,
            self.coarse.attention.key_value(coarse) if self.coarse else None,
            self.fine.attention.key_value(joined) if self.fine else None,
        )

    def fuse(self, total, memory, bias, expert_bias):
        y = self.self_norm(total)
        fused = y
        if self.plain:
            fused = fused + self.dropout(self.plain(y, memory[0], bias))
        if self.coarse:
            fused = fused + self.dropout(self.coarse(y, memory[1], bias))
        if self.fine:
            fused = fused + self.dropout(self.fine(y, memory[2], expert_bias))
        hidden = self.fusion_norm(fused)
        return self.feed_forward_norm(hidden + self.dropout(self.feed_forward(hidden)))

    def forward(self, x, causal, memory, bias, expert_bias):
        attended = self.self_attention(x, self.self_attention.key_value(x), causal)
        return self.fuse(x + self.dropout(attended), memory, bias, expert_bias)


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        width, sizes = c["d_model"], c["vocabulary"]
        self.start = nn.Parameter(torch.empty(1, width))
        self.embeddings = nn.ModuleList(nn.Embedding(size, width) for size in sizes[:-1])
        self.positions = nn.Parameter(torch.empty(len(sizes), width))
        coarse = c["fusion"] in ("coarse", "both")
        self.coarse_memory = CoarseFusion(c["encoder_layers"], width, width) if coarse else None
        self.layers = nn.ModuleList(DecoderLayer(c) for _ in range(c["decoder_layers"]))
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in sizes)
        self.dropout = nn.Dropout(c["dropout"])
        n = len(sizes)
        causal = torch.zeros(n, n).masked_fill(torch.ones(n, n).triu(1).bool(), HIDDEN)
        self.register_buffer("causal", causal, persistent=False)
        self.experts = c["encoder_layers"]

    def memory(self, outputs):
        """Keys and values for every layer."""
        coarse = self.coarse_memory(outputs) if self.coarse_memory else None
        joined = torch.cat(outputs, 0) if self.layers[0].fine else None
        return [layer.memory(outputs, joined, coarse) for layer in self.layers]

    def forward(self, identifiers, outputs, bias):
        batch = identifiers.shape[0]
        inputs = [self.start.expand(batch, 1, -1)]
        for level, embedding in enumerate(self.embeddings):
            inputs.append(embedding(identifiers[:, level : level + 1]))
        x = self.dropout(torch.cat(inputs, 1) + self.positions)
        memories = self.memory(outputs)
        expert_bias = bias.repeat(self.experts, 1, 1, 1)
        causal = self.causal.to(bias.dtype)
        for layer, memory in zip(self.layers, memories):
            x = layer(x, causal, memory, bias, expert_bias)
        return [head(x[:, level]) for level, head in enumerate(self.heads)]


class Cart(nn.Module):
    """Text encoder, fusion, identifier decoder."""

    def __init__(self, config):
        super().__init__()
        self.encoder = TextEncoder(config)
        self.decoder = Decoder(config)

    def bias(self, padding):
        """Scores to add so that padding is not seen, [batch, 1, 1, tokens]."""
        device = padding.device.type
        low = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if low else self.decoder.positions.dtype
        return (padding.to(dtype) * HIDDEN)[:, None, None, :]

    def forward(self, tokens, padding, identifiers):
        bias = self.bias(padding)
        return self.decoder(identifiers, self.encoder(tokens, bias), bias)


def load_weights(model, path):
    """Fills the model from the library's names; every tensor must have its place."""
    tensors = safetensors_file(path)
    renamed = {}
    for name, tensor in tensors.items():
        parts = name.split(".")
        last = parts[-1]
        owner = model.get_submodule(".".join(parts[:-1]))
        if isinstance(owner, nn.LayerNorm):
            last = {"gamma": "weight", "beta": "bias"}[last]
        elif isinstance(owner, nn.Linear) and last == "weight":
            # The library keeps [input, output], PyTorch [output, input].
            tensor = tensor.T.contiguous()
        renamed[".".join(parts[:-1] + [last])] = tensor
    model.load_state_dict(renamed)


def safetensors_file(path):
    need("safetensors")
    from safetensors.torch import load_file

    return load_file(path)


def library_name(model, name):
    """The library's name of a parameter."""
    owner, _, last = name.rpartition(".")
    if isinstance(model.get_submodule(owner), nn.LayerNorm):
        last = {"weight": "gamma", "bias": "beta"}[last]
    return f"{owner}.{last}"


def identifier_loss(logits, identifiers, legal, training, passes):
    """(cross-entropy, consistency) with the scope, smoothing and level weights of the settings."""
    levels = len(logits)
    weights = training["level_weights"] or [1.0] * levels
    smoothing = training["label_smoothing"]
    batch = identifiers.shape[0] // passes
    cross_entropy = consistency = 0.0
    for level, table in enumerate(logits):
        weight = weights[level] / sum(weights)
        if weight == 0.0:
            continue
        if table.dtype == torch.bfloat16:
            table = table.float()
        if training["scope"] == "legal":
            table = table.masked_fill(~legal[level], ILLEGAL)
        log_p = table.log_softmax(-1)
        nll = -log_p.gather(1, identifiers[:, level : level + 1]).mean()
        if smoothing > 0.0:
            if training["scope"] == "legal":
                share = legal[level].to(table.dtype)
                share = share / share.sum(1, keepdim=True)
                spread = -(log_p * share).sum(1).mean()
            else:
                spread = -log_p.mean()
            nll = nll * (1.0 - smoothing) + spread * smoothing
        cross_entropy = cross_entropy + nll * weight
        if passes == 2:
            first, second = log_p[:batch], log_p[batch:]
            kl = ((first.exp() - second.exp()) * (first - second)).sum()
            consistency = consistency + kl * (0.5 * weight / batch)
    return cross_entropy, consistency


class Batch:
    """Queries and targets on a device."""

    def __init__(self, tokens, padding, identifiers, legal):
        self.tokens, self.padding, self.identifiers, self.legal = tokens, padding, identifiers, legal

    def doubled(self):
        """Every query twice, for two passes of different dropout."""
        double = lambda t: torch.cat([t, t], 0)  # noqa: E731
        return Batch(
            double(self.tokens),
            double(self.padding),
            double(self.identifiers),
            [double(legal) for legal in self.legal],
        )


class Trainer:
    """Forward, backward, global clipping, AdamW that decays matrices only."""

    def __init__(self, model, training, device, dtype, optimizer="fused", compiled=False):
        self.model, self.training, self.device, self.dtype = model, training, device, dtype
        self.forward = torch.compile(self.loss) if compiled else self.loss
        matrices = [p for p in model.parameters() if p.dim() > 1]
        vectors = [p for p in model.parameters() if p.dim() <= 1]
        groups = [
            {"params": matrices, "weight_decay": training["weight_decay"]},
            {"params": vectors, "weight_decay": 0.0},
        ]
        how = {"fused": {"fused": True}, "foreach": {"foreach": True}, "loop": {"foreach": False}}
        self.optimizer = torch.optim.AdamW(
            groups, lr=training["learning_rate"], betas=(0.9, 0.98), eps=1e-8, **how[optimizer]
        )

    def loss(self, batch):
        training = self.training["loss"]
        passes = 2 if training["r_drop"] > 0 else 1
        if passes == 2:
            batch = batch.doubled()
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = self.model(batch.tokens, batch.padding, batch.identifiers)
        cross_entropy, consistency = identifier_loss(
            logits, batch.identifiers, batch.legal, training, passes
        )
        return cross_entropy + training["r_drop"] * consistency

    def gradients(self, batch):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.forward(batch)
        loss.backward()
        return loss.detach()

    def step(self, batch):
        loss = self.gradients(batch)
        if self.training["clip_norm"] > 0:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.training["clip_norm"])
        self.optimizer.step()
        return loss


def read_batch(folder, reference, device):
    """The dumped batch, and the logits to try the loss on."""
    tensors = safetensors_file(os.path.join(folder, "batch.safetensors"))
    rows, width = reference["batch"], reference["tokens"]
    sizes = reference["config"]["vocabulary"]
    table = lambda name, columns: tensors[name].long().view(rows, columns).to(device)  # noqa: E731
    batch = Batch(
        table("tokens", width),
        table("padding", width).bool(),
        table("identifiers", len(sizes)),
        [table(f"legal.{level}", size).bool() for level, size in enumerate(sizes)],
    )
    return batch, [tensors[f"logits.{level}"].to(device) for level in range(len(sizes))]


def random_batches(reference, batch, count, seed, device):
    """Batches like the dumped one, with other tokens and no padding."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary = reference["config"]["text_vocabulary"]
    result = []
    for _ in range(count):
        tokens = torch.randint(1, vocabulary, tuple(batch.tokens.shape), generator=generator)
        rows = torch.randperm(batch.tokens.shape[0], generator=generator).to(device)
        result.append(
            Batch(
                tokens.to(device),
                torch.zeros_like(batch.padding),
                batch.identifiers[rows],
                [legal[rows] for legal in batch.legal],
            )
        )
    return result


def build(reference, folder, device, dropout):
    model = Cart({**reference["config"], "dropout": dropout})
    load_weights(model, os.path.join(folder, "weights.safetensors"))
    return model.to(device).train()


def check(folder, reference, device, optimizer):
    """The largest relative deviations from the reference, without dropout.

    Gradients are computed in 64 bits here, so that what deviates is not this side's rounding (in 32
    bits, single small gradients of PyTorch itself are off by 1e-4); training steps in 32 bits.
    """
    batch, logits = read_batch(folder, reference, device)
    training = reference["training"]
    relative = lambda a, b: abs(a - b) / max(abs(b), 1e-12)  # noqa: E731

    double = batch.doubled()
    cross_entropy, consistency = identifier_loss(
        logits, double.identifiers, double.legal, training["loss"], 2
    )
    example = reference["loss_example"]
    deviations = {
        "cross-entropy of given logits": relative(float(cross_entropy), example["cross_entropy"]),
        "consistency of given logits": relative(float(consistency), example["consistency"]),
    }

    model = build(reference, folder, device, 0.0).double()
    trainer = Trainer(model, training, device, torch.float32, optimizer)
    deviations["loss"] = relative(float(trainer.gradients(batch)), reference["loss"])
    total, worst = 0.0, (0.0, "")
    # Gradients that are zero but for rounding (a bias of keys moves nothing) say nothing.
    least = 1e-6 * reference["gradient_norm"]
    for name, parameter in model.named_parameters():
        norm = float(parameter.grad.double().norm())
        total += norm**2
        # Where the other side knows that a gradient is zero, it has none.
        expected = reference["gradient_norms"].get(library_name(model, name), 0.0)
        if max(norm, expected) > least:
            worst = max(worst, (relative(norm, expected), name))
    deviations["gradient norm"] = relative(math.sqrt(total), reference["gradient_norm"])
    deviations[f"gradient norm of {worst[1]}"] = worst[0]
    named = {library_name(model, name) for name, _ in model.named_parameters()}
    unknown = set(reference["gradient_norms"]) - named
    if unknown:
        sys.exit(f"not the same network: it has no {', '.join(sorted(unknown))}")

    model = build(reference, folder, device, 0.0)
    trainer = Trainer(model, training, device, torch.float32, optimizer)
    for step, expected in enumerate(reference["losses"]):
        deviations[f"loss of training step {step}"] = relative(float(trainer.step(batch)), expected)
    return deviations


def main():
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("folder", help="what `measure dump` wrote")
    arguments.add_argument("--check-only", action="store_true", help="compare, time nothing")
    arguments.add_argument("--unchecked", action="store_true",
                           help="a check has just passed; for a peak memory without the check's")
    arguments.add_argument("--r-drop", type=float, help="as dumped without it")
    arguments.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ..")
    arguments.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    arguments.add_argument("--compile", action="store_true", help="torch.compile")
    arguments.add_argument("--manual-attention", action="store_true",
                           help="products and softmax instead of scaled_dot_product_attention")
    arguments.add_argument("--optimizer", default="fused", choices=["fused", "foreach", "loop"])
    arguments.add_argument("--batches", type=int, default=4)
    args = arguments.parse_args()
    torch_with_threads(args.threads)
    imported()
    try:
        device = torch.device(args.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        sys.exit(f"device {args.device}: {error}; pass --device cpu")
    Attention.manual = args.manual_attention
    torch.manual_seed(args.seed)
    with open(os.path.join(args.folder, "reference.json")) as file:
        reference = json.load(file)

    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
    deviations = {} if args.unchecked else check(args.folder, reference, device, args.optimizer)
    for name, deviation in deviations.items():
        print(f"same network? {name}: relative deviation {deviation:.1e}", file=sys.stderr)
    for name, deviation in deviations.items():
        trained = name.startswith("loss of training step") and not name.endswith(" 0")
        if not deviation <= (TRAINED_TOLERANCE if trained else TOLERANCE):
            sys.exit(f"not the same network: {name} deviates by {deviation:.2e} (relative)")
    if args.check_only:
        emit("torch", {"measure": "check", "deviations": deviations})
        return

    training = reference["training"]
    if args.r_drop is not None:
        training["loss"]["r_drop"] = args.r_drop
    batch, _ = read_batch(args.folder, reference, device)
    batches = random_batches(reference, batch, args.batches, args.seed, device)
    model = build(reference, args.folder, device, reference["config"]["dropout"])
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    trainer = Trainer(model, training, device, dtype, args.optimizer, args.compile)
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    last = []

    def step(number):
        last[:] = [trainer.step(batches[number % len(batches)])]

    synchronise = (lambda: torch.cuda.synchronize(device)) if cuda else (lambda: None)
    seconds = repeat(step, args.warmup, args.steps, synchronise)
    config = reference["config"]
    emit(
        "torch",
        {
            "measure": "train-step",
            "version": torch.__version__,
            "device": torch.cuda.get_device_name(device) if cuda else "cpu",
            "threads": torch.get_num_threads(),
            "dtype": args.dtype,
            "compiled": args.compile,
            "optimizer": args.optimizer,
            "attention": "manual" if args.manual_attention else "torch",
            "parameters": sum(p.numel() for p in model.parameters()),
            "loss": float(last[0]),
            "checked": not args.unchecked,
            "peak_device_mib": torch.cuda.max_memory_allocated(device) / 2**20 if cuda else None,
            "rss_mib": status("VmRSS"),
            "settings": {
                "batch": reference["batch"], "tokens": reference["tokens"],
                "r_drop": training["loss"]["r_drop"], "width": config["d_model"],
                "encoder_layers": config["encoder_layers"],
                "decoder_layers": config["decoder_layers"], "heads": config["n_heads"],
                "fusion": config["fusion"], "dropout": config["dropout"],
                "vocabulary": config["text_vocabulary"], "levels": config["vocabulary"],
            },
            **times(seconds, reference["batch"]),
        },
    )


if __name__ == "__main__":
    main()
