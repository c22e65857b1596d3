"""Decoding and preparing pictures as Python programs do, with Pillow and numpy; makes the files too.

The counterpart of `measure media --work pictures`: every picture is decoded, its shorter side resized to 224 with the
cubic filter, the middle cut out, and its colours normalised. As many processes as threads share the files.
"""

import multiprocessing
import os
from pathlib import Path

from common import emit, imported, need, parser, repeat, times

numpy = need("numpy")
need("PIL", "pillow")
from PIL import Image  # noqa: E402

MEAN = numpy.array([0.48145466, 0.4578275, 0.40821073], numpy.float32)
DEVIATION = numpy.array([0.26862954, 0.26130258, 0.27577711], numpy.float32)


def picture(number, width=500, height=375):
    """Something with the smooth and the rough of a photograph."""
    random = numpy.random.default_rng(number)
    y, x = numpy.mgrid[0:height, 0:width]
    waves = random.normal(size=(3, 6, 3))
    planes = [
        sum(a * 40 * numpy.sin(x * b / 40 + y * c / 40) for a, b, c in waves[channel]) for channel in range(3)
    ]
    values = 128 + numpy.stack(planes, -1) + random.normal(scale=6, size=(height, width, 3))
    return Image.fromarray(values.clip(0, 255).astype(numpy.uint8))


def make(folder, count, kind):
    """So many files, unless they are there."""
    folder = Path(folder)
    if folder.exists() and len(list(folder.iterdir())) == count:
        return
    folder.mkdir(parents=True, exist_ok=True)
    # A picture in twelve is drawn, the others are parts of it in other places.
    drawn = {}
    for number in range(count):
        shift = number // 12
        image = drawn.setdefault(number % 12, picture(number % 12, 900, 700))
        x, y = shift * 37 % 400, shift * 53 % 325
        part = image.crop((x, y, x + 500, y + 375))
        options = {"quality": 90} if kind == "jpg" else {}
        part.save(folder / f"{number:06}.{kind}", **options)


def prepared(path):
    with open(path, "rb") as file:
        image = Image.open(file).convert("RGB")
    width, height = image.size
    scale = 224 / min(width, height)
    image = image.resize((max(224, int(width * scale)), max(224, int(height * scale))), Image.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    values = numpy.asarray(image.crop((left, top, left + 224, top + 224)), numpy.float32)
    return ((values / 255 - MEAN) / DEVIATION).transpose(2, 0, 1)


def summed(path):
    return float(prepared(path).sum())


def main():
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("folder")
    arguments.add_argument("--make", type=int, help="only make so many files")
    arguments.add_argument("--kind", default="jpg", choices=["jpg", "png", "webp"])
    args = arguments.parse_args()
    if args.make:
        make(args.folder, args.make, args.kind)
        emit("python", {"measure": "media", "made": args.make})
        return
    imported()
    paths = sorted(str(path) for path in Path(args.folder).iterdir())
    result = {}
    workers = args.threads or os.cpu_count()
    with multiprocessing.Pool(workers) as pool:
        def work(_):
            result["checksum"] = sum(pool.imap_unordered(summed, paths, chunksize=16))

        seconds = repeat(work, args.warmup, args.steps)
    emit("python", {
        "measure": "media", "threads": workers, "items": len(paths), **result, **times(seconds, len(paths)),
    })


if __name__ == "__main__":
    main()
