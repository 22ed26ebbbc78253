"""Films: the world, what the agent sees of it, and which remembered steps it looks at."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from relagent.looks import title
from relagent.memories.relevancy import RelevancyMemory
from relagent.rl.checkpoint import LoadedPolicy, load_policy
from relagent.rl.report import short_name
from relagent.runs.files import output_folder, replacing, writing
from relagent.study.transfer.episode import Moment, Slot, WatchError, record

WIDTH, HEIGHT, MARGIN = 1000, 610, 16
TOP = 356
"""Where the memory's part begins."""

INK, FAINT, LINE = "#222222", "#6b6b6b", "#c8c8c8"
ATTENTION, EARNED = "#d55e00", "#0072b2"
RELEVANT_GROUND, BUFFER_GROUND = "#e8f1f8", "#f3f3f1"

SCREENING = (
    "Each step, the oldest view leaves the buffer: into the relevant set, if it earned more "
    "attention than the least relevant view there, which is then forgotten."
)

MILLISECONDS, FAST_MILLISECONDS, LAST_MILLISECONDS = 600, 250, 2500
LONG = 60
"""Episodes of more steps are shown faster."""


def film(
    run: Path,
    world: str | None = None,
    out: Path | None = None,
    *,
    episodes: int = 1,
    first: int = 0,
    greedy: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """Film evaluation episodes of a trained agent, one frame a step.

    Args:
        run: a run directory.
        world: a MiniGrid or BabyAI world; by default the one of training.
        out: ``.gif``, or ``.mp4`` where ffmpeg is installed; by default in the run directory.
        episodes: how many.
        first: number of the first evaluation episode.
        greedy: take the most probable action instead of sampling.
        say: told of each episode.

    Returns:
        The file.

    Raises:
        WatchError: another kind of file, or no ffmpeg, or a world without a picture.
        WriteError: the film cannot be written; one that was there is untouched.
        RelagentError: a run that cannot be loaded, or a world that does not fit.
    """
    loaded = load_policy(run)
    world = loaded.config.env if world is None else world
    out = out or run / "films" / f"{short_name(world)}.gif"
    kind = out.suffix.lower()
    if kind not in (".gif", ".mp4"):
        raise WatchError(f"{out} is no name of a film: let it end in .gif or .mp4")
    if kind == ".mp4" and shutil.which("ffmpeg") is None:
        raise WatchError(f"{out} needs ffmpeg, which is not installed: write a .gif instead")
    if out.is_dir():
        raise WatchError(f"{out} is a folder: name a file")
    with output_folder(out.parent):
        played: list[tuple[int, list[Moment]]] = []
        durations: list[int] = []
        for number in range(first, first + episodes):
            moments = record(loaded.policy, world, number, greedy=greedy)
            last = moments[-1]
            end = f"{last.over} after {len(moments)} steps, reward {last.reward:.3f}"
            say(f"episode {number}: {end}")
            each = MILLISECONDS if len(moments) <= LONG else FAST_MILLISECONDS
            durations += [each] * (len(moments) - 1) + [LAST_MILLISECONDS]
            played.append((number, moments))
        frames = (  # drawn one by one: an episode may have thousands
            frame(moments, step, loaded, world, number)
            for number, moments in played
            for step in range(len(moments))
        )
        with writing(out), replacing(out) as unfinished:
            (_write_gif if kind == ".gif" else _write_mp4)(unfinished, frames, durations)
    return out


def frame(
    moments: Sequence[Moment], step: int, loaded: LoadedPolicy, world: str, number: int
) -> Image.Image:
    """Draw one step of an episode: an RGB picture of WIDTH x HEIGHT."""
    moment = moments[step]
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    memory = loaded.policy.memory
    known = loaded.config.memory
    agent = "an agent without memory" if known == "none" else title(known)
    heading = f"{agent}, trained on {short_name(loaded.config.env)}, in {short_name(world)}"
    draw.text((MARGIN, 10), heading, INK, _font(18, bold=True))
    draw.text((WIDTH - MARGIN, 12), f"episode {number}, step {step}", FAINT, _font(15), anchor="ra")

    draw.text((MARGIN, 42), "the world (lit: the agent's view)", FAINT, _font(13))
    _paste(picture, moment.world, (MARGIN, 62), 280)
    draw.text((320, 42), "what the agent sees", FAINT, _font(13))
    _paste(picture, moment.view, (320, 62), 280)
    _words(draw, moment, (624, 62))

    if isinstance(memory, RelevancyMemory):
        half = (WIDTH - 3 * MARGIN) // 2
        relevant = [slot for slot in moment.slots if slot.relevant]
        recent = [slot for slot in moment.slots if not slot.relevant]
        _block(
            picture,
            (MARGIN, TOP, half),
            f"relevant set: ρ = {memory.rho} older steps that earned the most attention",
            RELEVANT_GROUND,
            sorted(relevant),
            memory.rho,
            moments,
            step,
        )
        _block(
            picture,
            (2 * MARGIN + half, TOP, half),
            f"short-term buffer: the last ν = {memory.nu} steps, which earn relevance",
            BUFFER_GROUND,
            recent,
            memory.nu,
            moments,
            step,
        )
        draw.text((MARGIN, HEIGHT - 54), SCREENING, INK, _font(12))
        _legend(draw, "attention at this step", "relevance: attention earned in the buffer")
    elif moment.slots:
        shown = sorted(sorted(moment.slots, key=lambda slot: -slot.weight)[:10])
        _block(
            picture,
            (MARGIN, TOP, WIDTH - 2 * MARGIN),
            _all_steps(moment.slots, shown),
            BUFFER_GROUND,
            shown,
            10,
            moments,
            step,
        )
        _legend(draw, "attention at this step", "attention earned so far")
    else:
        text = f"{agent} has no attention: no step of the past can be looked at again"
        draw.text((MARGIN, TOP), text, FAINT, _font(15))
    return picture


def _all_steps(slots: Sequence[Slot], shown: Sequence[Slot]) -> str:
    """The heading over what full attention looks at most."""
    if len(shown) == len(slots):
        return "memory: all steps of the episode so far"
    rest = sum(slot.weight for slot in slots) - sum(slot.weight for slot in shown)
    return (
        f"memory: all {len(slots)} steps of the episode; these are looked at most, the others get "
        f"{rest:.0%} together"
    )


def _words(draw: ImageDraw.ImageDraw, moment: Moment, place: tuple[int, int]) -> None:
    x, y = place
    wide = WIDTH - MARGIN - x
    for label, text in (("mission", moment.mission), ("action", moment.action)):
        draw.text((x, y), label, FAINT, _font(13))
        y = _wrapped(draw, text, (x, y + 17), wide, _font(17, bold=label == "action")) + 8
    outcome = f"{moment.reward:.3f}" if moment.reward or moment.over else "0"
    draw.text((x, y), "reward", FAINT, _font(13))
    text = f"{outcome}  {moment.over}".rstrip()
    draw.text((x, y + 17), text, ATTENTION if moment.over else INK, _font(17, bold=True))
    y += 50
    if moment.slots:
        most = max(moment.slots, key=lambda slot: slot.weight)
        ago = moment.step - most.step
        when = "this very step" if ago == 0 else f"step {most.step}, {ago} ago"
        where = "" if not most.relevant else ", in the relevant set"
        draw.text((x, y), "looks most at", FAINT, _font(13))
        y = _wrapped(draw, f"{when}{where} ({most.weight:.0%})", (x, y + 17), wide, _font(15)) + 8
    if moment.event:
        draw.text((x, y), "memory", FAINT, _font(13))
        _wrapped(draw, moment.event, (x, y + 17), wide, _font(15))


def _block(
    picture: Image.Image,
    place: tuple[int, int, int],
    heading: str,
    ground: str,
    slots: Sequence[Slot],
    room: int,
    moments: Sequence[Moment],
    now: int,
) -> None:
    """Draw remembered steps: the view of each, when it was, and how much it is looked at."""
    x, y, width = place
    height = HEIGHT - y - 62
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle((x, y, x + width, y + height), 8, fill=ground)
    draw.text((x + 10, y + 8), heading, INK, _font(12))
    columns, size = _grid(max(room, 1), width - 12, height - 32)
    most = max((slot.relevance for slot in moments[now].slots), default=0.0)
    for place_number, slot in enumerate(slots):
        row, column = divmod(place_number, columns)
        left = x + 10 + column * (size + 10)
        top = y + 32 + row * (size + 62)
        _slot(picture, draw, slot, moments[slot.step], (left, top, size), now, most)


def _grid(room: int, width: int, height: int) -> tuple[int, int]:
    """Columns and size of the largest thumbnails with which all slots fit."""
    best = (room, 8)
    for columns in range(1, room + 1):
        rows = -(-room // columns)
        size = min(width // columns - 10, height // rows - 66, 112)
        if size > best[1]:
            best = columns, size
    return best


def _slot(
    picture: Image.Image,
    draw: ImageDraw.ImageDraw,
    slot: Slot,
    then: Moment,
    place: tuple[int, int, int],
    now: int,
    most: float,
) -> None:
    """Draw one remembered step; the thin bar is full for the relevance ``most``."""
    x, y, size = place
    ago = f"−{now - slot.step}" if slot.step < now else ""
    label = f"step {slot.step}" if ago else "now"
    if draw.textlength(f"{label} {ago}", _font(12)) > size:
        label = label.removeprefix("step ")
    draw.text((x, y), label, INK, _font(12, bold=not ago))
    draw.text((x + size, y), ago, FAINT, _font(12), anchor="ra")
    y += 18
    # The border is as strong as the attention.
    strength = round(6 * slot.weight**0.5)
    if strength:
        draw.rectangle(
            (x - strength, y - strength, x + size + strength, y + size + strength), ATTENTION
        )
    _paste(picture, then.view, (x, y), size)
    y += size + 8
    _bar(draw, (x, y, size, 11), slot.weight, ATTENTION)
    draw.text((x + size, y + 22), f"{slot.weight:.0%}", ATTENTION, _font(12), anchor="ra")
    _bar(draw, (x, y + 13, size, 4), slot.relevance / most if most else 0.0, EARNED)
    draw.text((x, y + 22), f"{slot.relevance:.2f}", EARNED, _font(12))


def _bar(
    draw: ImageDraw.ImageDraw, place: tuple[int, int, int, int], share: float, colour: str
) -> None:
    x, y, width, height = place
    draw.rectangle((x, y, x + width, y + height), "white", LINE)
    if share > 0:
        draw.rectangle((x, y, x + round(width * share), y + height), colour)


def _legend(draw: ImageDraw.ImageDraw, attention: str, earned: str) -> None:
    y = HEIGHT - 26
    draw.rectangle((MARGIN, y, MARGIN + 26, y + 11), ATTENTION)
    draw.text((MARGIN + 34, y - 3), f"{attention} (border and wide bar)", INK, _font(13))
    draw.rectangle((430, y + 3, 456, y + 7), EARNED)
    draw.text((464, y - 3), f"{earned} (thin bar)", INK, _font(13))


def _paste(picture: Image.Image, array: object, place: tuple[int, int], size: int) -> None:
    """Paste a picture, scaled into a square of that size."""
    tile = Image.fromarray(array)  # type: ignore[arg-type]  # numpy arrays have its interface
    scale = size / max(tile.size)
    tile = tile.resize(
        (round(tile.width * scale), round(tile.height * scale)), Image.Resampling.LANCZOS
    )
    picture.paste(tile, place)


def _wrapped(
    draw: ImageDraw.ImageDraw,
    text: str,
    place: tuple[int, int],
    width: int,
    font: ImageFont.FreeTypeFont,
) -> int:
    """Write text in lines of at most that width; return where the next line would be."""
    x, y = place
    line = ""
    for word in [*text.split(), ""]:
        longer = f"{line} {word}".strip()
        if word and draw.textlength(longer, font) <= width:
            line = longer
            continue
        draw.text((x, y), line, INK, font)
        y += round(1.3 * font.size)
        line = word
    return y


@lru_cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    # Comes with matplotlib, and has Greek letters.
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(folder / name), size)


def _write_gif(out: Path, frames: Iterator[Image.Image], durations: Sequence[int]) -> None:
    # A palette for each frame, and no dither: flat colours stay flat, and the file small.
    flat = (image.quantize(128, dither=Image.Dither.NONE) for image in frames)
    next(flat).save(
        out, save_all=True, append_images=flat, duration=list(durations), loop=0, disposal=1
    )


def _write_mp4(out: Path, frames: Iterator[Image.Image], durations: Sequence[int]) -> None:
    each = 50
    words = ["ffmpeg", "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    words += ["-s", f"{WIDTH}x{HEIGHT}", "-r", str(1000 // each), "-i", "-"]
    words += ["-pix_fmt", "yuv420p", str(out)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it gave up: its last words say why
            for image, duration in zip(frames, durations, strict=True):
                process.stdin.write(image.tobytes() * (duration // each))
        _, said = process.communicate()
    if process.returncode != 0:
        lines = said.decode(errors="replace").strip().splitlines()
        why = lines[-1] if lines else "it gave no reason"
        raise WatchError(f"ffmpeg could not write the film: {why}; write a .gif instead")
