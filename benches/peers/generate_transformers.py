"""Constrained generation by transformers: T5 with `prefix_allowed_tokens_fn`, as generative retrieval is usually done.

A T5 of the network's size without fusion (its decoder attends to the last encoder layer), random weights, random identifiers.
Compare with `measure queries --fusion none`, and with full fusion, which does several times the arithmetic:

    python benches/peers/generate_transformers.py --threads 2 --candidates 100000
    cargo run --release -p cart-lab --bin measure -- queries --threads 2 --candidates 100000 --batch 32 --tokens 16 --fusion none
"""

from common import emit, imported, need, parser, repeat, times, torch_with_threads

torch = need("torch")
need("transformers")
import random  # noqa: E402

from transformers import T5Config, T5ForConditionalGeneration  # noqa: E402

FIRST = 2  # Tokens of the identifiers start behind padding and end.


def trie(n, sizes, seed):
    """Children of every prefix, as a dict: what such programs have."""
    draw = random.Random(seed)
    offsets = [FIRST + sum(sizes[:level]) for level in range(len(sizes))]
    children, seen = {}, set()
    while len(seen) < n:
        row = tuple(draw.randrange(size) for size in sizes)
        if row in seen:
            continue
        seen.add(row)
        prefix = ()
        for level, token in enumerate(row):
            token += offsets[level]
            children.setdefault(prefix, set()).add(token)
            prefix += (token,)
    return {prefix: sorted(tokens) for prefix, tokens in children.items()}, FIRST + sum(sizes)


def main():
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--batch", type=int, default=32)
    arguments.add_argument("--beam", type=int, default=20)
    arguments.add_argument("--tokens", type=int, default=16)
    arguments.add_argument("--candidates", type=int, default=100_000)
    arguments.add_argument("--levels", default="32,64,64,64,3")
    arguments.add_argument("--width", type=int, default=384)
    arguments.add_argument("--heads", type=int, default=6)
    arguments.add_argument("--encoder-layers", type=int, default=6)
    arguments.add_argument("--decoder-layers", type=int, default=4)
    args = arguments.parse_args()
    torch_with_threads(args.threads)
    imported()
    torch.manual_seed(args.seed)
    sizes = [int(size) for size in args.levels.split(",")]
    children, tokens = trie(args.candidates, sizes, args.seed)
    config = T5Config(
        vocab_size=30_522, d_model=args.width, d_kv=args.width // args.heads, d_ff=4 * args.width,
        num_layers=args.encoder_layers, num_decoder_layers=args.decoder_layers, num_heads=args.heads,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    )
    assert tokens <= config.vocab_size
    model = T5ForConditionalGeneration(config).eval()
    end = [config.eos_token_id]

    def allowed(_, prefix):
        return children.get(tuple(prefix.tolist()[1:]), end)

    def search(_):
        queries = torch.randint(FIRST, config.vocab_size, (args.batch, args.tokens))
        with torch.inference_mode():
            found = model.generate(
                input_ids=queries, attention_mask=torch.ones_like(queries), num_beams=args.beam,
                num_return_sequences=args.beam, max_new_tokens=len(sizes), min_new_tokens=len(sizes),
                prefix_allowed_tokens_fn=allowed, do_sample=False,
            )
        assert found.shape == (args.batch * args.beam, len(sizes) + 1), found.shape

    seconds = repeat(search, args.warmup, args.steps, lambda: None)
    import transformers

    emit(
        "transformers",
        {
            "measure": "queries",
            "version": transformers.__version__,
            "threads": torch.get_num_threads(),
            "settings": {
                "candidates": args.candidates, "beam": args.beam, "batch": args.batch,
                "tokens": args.tokens, "width": args.width, "fusion": "none", "levels": sizes,
            },
            **times(seconds, args.batch),
        },
    )


if __name__ == "__main__":
    main()
