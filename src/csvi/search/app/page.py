"""The page of `csvi app`, in Gradio: a tab to search, with what was found, and a tab on the gallery."""

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from jinja2 import Environment, PackageLoader
from markupsafe import escape

from csvi.errors import CsviError
from csvi.search.app.desk import MOST_ANSWERS, Desk, Session, Statistics
from csvi.search.app.pictures import as_source
from csvi.search.query import Where, moment

TEMPLATES = Path(__file__).with_name("templates")
ANY, DETECT = "any", "detect"
LAWFUL = (
    "To find natural persons by their looks needs a legal basis, such as their consent or a law that allows it, and is "
    "forbidden for some purposes: see docs/search.md."
)
MOST_DAYS = 62
"""Days that have a bar each; where there are more, months have."""
OLDEST = 3600
"""Seconds after which the file of a probe is removed, if the page is open that long."""

_pages = Environment(loader=PackageLoader("csvi.search.app"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
_looks = itertools.count()


def build_page(desk: Desk, uploads: Path, hint: str = "") -> gr.Blocks:
    """Build the page, which `csvi.search.app.server` serves.

    Args:
        desk: what it asks.
        uploads: folder that probes lie in; files elsewhere are none.
        hint: a sentence below its title.
    """
    statistics = desk.statistics()

    def search(
        files: list[str] | None,
        spectrum: str,
        cameras: list[str],
        modality: str,
        since: str,
        until: str,
        top: float | None,
        by_track: bool,
        session: Session,
    ) -> tuple[Session, str, str]:
        try:
            if not all(Path(file).resolve().is_relative_to(uploads.resolve()) for file in files or []):
                raise CsviError("a probe must be a file that was uploaded")
            where = _where(cameras, modality, since, until)
            desk.search(session, files or [], spectrum, where, int(top or 0), by_track)
        except CsviError as error:
            return session, escape(error), ""
        return session, *_answered(desk, session)

    def judge(session: Session, event: gr.EventData) -> Session:
        session.judge(event.rank, {"right": True, "wrong": False}.get(event.verdict))
        return session

    def forget(session: Session) -> Session:
        session.verdicts = {}
        return session

    def look(session: Session, event: gr.EventData) -> str:
        looks, trouble = [], ""
        try:
            cards = desk.look(session, event.rank)
            names = [f"rank {event.rank}", *(f"probe {n}" for n in range(1, len(cards) // 2))]
            looks = list(zip(names, cards[::2], cards[1::2], strict=True))
        except CsviError as error:
            trouble = str(error)
        number = next(_looks)  # another text each time, or nothing would open
        return _pages.get_template("look.html.j2").render(looks=looks, trouble=trouble, number=number)

    def count() -> tuple[str, Any]:
        now = desk.statistics()
        return _statistics(desk, now), gr.Dropdown(choices=now.cameras)

    with gr.Blocks(title="csvi", analytics_enabled=False, delete_cache=(OLDEST // 4, OLDEST)) as page:
        gr.Markdown(f"# Search a person across day and night\n{hint}", elem_id="title")
        session = gr.State(Session())
        with gr.Tab("Search"), gr.Row():
            with gr.Column(scale=1, min_width=330, elem_id="question"):
                probes = gr.File(
                    label="Probes: images of one person", file_count="multiple", height=130, elem_id="probes"
                )
                spectrum = gr.Radio([DETECT, "visible", "infrared"], value=DETECT, label="Modality of the probes")
                cameras = gr.Dropdown(statistics.cameras, multiselect=True, label="Cameras; none chosen: all")
                modality = gr.Radio([ANY, "visible", "infrared"], value=ANY, label="Modality of the answers")
                with gr.Row():
                    since = gr.Textbox(label="Since", placeholder="2024-05-01", min_width=120)
                    until = gr.Textbox(label="Until", placeholder="2024-05-01", min_width=120)
                top = gr.Number(20, label=f"Answers, 1 to {MOST_ANSWERS}", precision=0)
                by_track = gr.Checkbox(label="Of each track the best image alone")
                ask = gr.Button("Search", variant="primary", elem_id="search")
            with gr.Column(scale=3, min_width=320):
                status = gr.HTML(html_template='<p role="status">${value}</p>', elem_id="status")
                with gr.Row():
                    refine = gr.Button("Refine", size="sm", min_width=90)
                    forget_all = gr.Button("Forget verdicts", size="sm", min_width=90)
                    save = gr.Button("Save list", size="sm", min_width=90)
                answers = gr.HTML(js_on_load=_text("answers.js"), apply_default_css=False, elem_id="answers")
                panel = gr.HTML(
                    html_template='<dialog class="look" aria-label="What the network looks at">'
                    '<form method="dialog"><button>Close</button></form>${value}</dialog>',
                    js_on_load=_text("look.js"),
                    apply_default_css=False,
                )
                listed = gr.Textbox(visible=False)
        with gr.Tab("Gallery"):
            about = gr.HTML(_statistics(desk, statistics), apply_default_css=False, elem_id="statistics")
            recount = gr.Button("Count again", size="sm")
        gr.Markdown(LAWFUL, elem_id="lawful")

        question = [probes, spectrum, cameras, modality, since, until, top, by_track, session]
        shown = [session, status, answers]
        own: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "model", "concurrency_limit": 1}
        asked = [probes.upload, ask.click, since.submit, until.submit, top.submit, refine.click]
        gr.on(asked, search, question, shown, **own)
        forget_all.click(forget, session, session, **own).then(search, question, shown, **own)
        # not queued: an answer of Gradio's queue is lost if it begins in the instant in which the one before it ends
        at_once: dict[str, Any] = {"queue": False, "api_visibility": "private"}
        answers.judge(judge, session, session, trigger_mode="multiple", show_progress="hidden", **at_once)
        answers.look(look, session, panel, show_progress="hidden", **own)
        save.click(Session.as_csv, session, listed, **own).then(None, listed, js=_text("save.js"))
        recount.click(count, None, [about, cameras], **own)
    return page


def _where(cameras: Sequence[str], modality: str, since: str, until: str) -> Where:
    """The conditions of the page; raises `CsviError` if a time is none."""
    since, until = since.strip(), until.strip()
    return Where(
        cameras=cameras,
        modality=None if modality == ANY else modality,
        since=moment(since) if since else None,
        until=moment(until, end=True) if until else None,
    )


def _answered(desk: Desk, session: Session) -> tuple[str, str]:
    """What the page says of answers, and these."""
    cards = desk.cards(session.answers)
    said = f"{len(session.answers)} of {len(desk.gallery):,} images, in {1000 * session.seconds:,.0f} ms"
    said += f"; {_judged(session)}." if session.verdicts else "."
    if troubles := [card.trouble for card in cards if card.trouble]:
        said += f" {len(troubles)} cannot be shown: {troubles[0]}."
    words = [session.verdicts[hit.path].word if hit.path in session.verdicts else "" for hit in session.answers]
    probes = [{"source": as_source(probe.picture), "modality": probe.modality.word} for probe in session.probes]
    answers = list(zip(session.answers, cards, words, strict=True))
    return escape(said), _pages.get_template("answers.html.j2").render(probes=probes, answers=answers)


def _judged(session: Session) -> str:
    return f"{len(session.judged(True))} right and {len(session.judged(False))} wrong"


def _statistics(desk: Desk, statistics: Statistics) -> str:
    facts, size = desk.gallery.facts, desk.gallery.bytes_on_disk
    told = [
        ("gallery", desk.gallery.name),
        ("images", f"{statistics.images:,}"),
        ("model", f"{facts.name} ({facts.fingerprint})"),
        ("embedding", f"{facts.dim:,} numbers of {16 if facts.half else 32} bits"),
        ("metric", facts.metric),
        ("index", facts.index),
        ("on disk", "not known of a server" if size is None else f"{size / 1e6:,.1f} MB"),
        ("folder of the images", str(desk.root)),
    ]
    order = {name: number for number, name in enumerate([*statistics.cameras, ""])}
    cameras = sorted(statistics.modalities.items(), key=lambda item: (order[item[0][0]], item[0][1]))
    days = statistics.days
    if len(days) > MOST_DAYS:
        days = Counter[str]()
        for day, images in statistics.days.items():
            days[day[:7]] += images
    return _pages.get_template("statistics.html.j2").render(
        facts=told,
        statistics=statistics,
        cameras=[(f"{camera or 'not known'}, {modality}", images) for (camera, modality), images in cameras],
        hours=[(f"{hour:02d}", statistics.hours[hour]) for hour in range(24)] if statistics.hours else [],
        days=sorted(days.items()),
    )


def _text(name: str) -> str:
    return (TEMPLATES / name).read_text()
