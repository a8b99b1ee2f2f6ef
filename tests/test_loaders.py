"""What the loaders make of documents as people have them, and what they refuse."""

import base64
import io
import json
import os
import re
import subprocess
import sys
import textwrap
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import docx
import pytest
from docx.enum.text import WD_BREAK
from docx.opc.constants import RELATIONSHIP_TYPE
from docx.oxml import OxmlElement
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfWriter
from pypdf.generic import DictionaryObject, NameObject, NumberObject, StreamObject

from ftlab_kit.errors import DataError, InputError, NotFound
from ftlab_kit.graphs import loaders
from ftlab_kit.graphs.loaders import Line, Text, blocks, markdown

HANDBOOK = Path(__file__).parent / "documents" / "handbook.md"
# the document that the kit was made with, if it is beside the repository
SEED = Path(__file__).parent.parent.parent / "shared" / "knowledge-base.md"
SOURCES = [HANDBOOK, *([SEED] if SEED.exists() else [])]
N_HEADINGS = {HANDBOOK.name: 10, SEED.name: 82}
TEMPLATE = f"{RELATIONSHIP_TYPE.HYPERLINK.removesuffix('hyperlink')}attachedTemplate"
FONTS = {"": "Helvetica", "b": "Helvetica-Bold", "c": "Courier"}

# a picture of one grey dot, as PNG
DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)


def saved(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def texts(text: Text) -> list[str]:
    """The lines that are not empty."""
    return [line.text for line in text.lines if line.text]


def reads(tmp_path: Path, name: str, content: str | bytes) -> list[str]:
    return texts(loaders.read(saved(tmp_path / name, content)))


def refused(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        loaders.read(saved(tmp_path / name, content))


# a line of a page: pieces of (text, font), its position and size
class Ink(NamedTuple):
    pieces: list[tuple[str, str]]
    y: float
    x: float = 72
    size: float = 10


def word(text: str, y: float, **place: Any) -> Ink:
    return Ink([(text, "")], y, **place)


def drawn(ink: Ink) -> bytes:
    def shown(text: str, font: str) -> bytes:
        safe = re.sub(r"([\\()])", r"\\\1", text).encode("cp1252")
        return b"/F%s %g Tf (%s) Tj" % (font.encode(), ink.size, safe)

    parts = b"\n".join(shown(text, font) for text, font in ink.pieces)
    return b"BT %g %g Td\n%s ET\n" % (ink.x, ink.y, parts)


def pdf_of(*pages: list[Ink] | bytes, password: str | None = None) -> bytes:
    """A PDF by its inks; a page given as bytes shows nothing but a picture."""
    writer = PdfWriter()
    for inks in pages:
        page = writer.add_blank_page(612, 792)
        resources, stream = DictionaryObject(), StreamObject()
        if isinstance(inks, bytes):
            picture = writer._add_object(picture_object(inks))
            resources[NameObject("/XObject")] = DictionaryObject({NameObject("/Im"): picture})
            stream.set_data(b"q 612 0 0 792 0 0 cm /Im Do Q")
        else:
            resources[NameObject("/Font")] = DictionaryObject(
                {NameObject(f"/F{key}"): font_object(name) for key, name in FONTS.items()}
            )
            stream.set_data(b"".join(map(drawn, inks)))
        page[NameObject("/Resources")] = resources
        page[NameObject("/Contents")] = writer._add_object(stream)
    if password is not None:
        writer.encrypt(password, "owner", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def font_object(name: str) -> DictionaryObject:
    values = {"Type": "Font", "Subtype": "Type1", "BaseFont": name, "Encoding": "WinAnsiEncoding"}
    return DictionaryObject({NameObject(f"/{k}"): NameObject(f"/{v}") for k, v in values.items()})


def picture_object(grey: bytes) -> StreamObject:
    stream = StreamObject()
    stream.set_data(grey)
    for key, value in {"Width": 1, "Height": 1, "BitsPerComponent": 8}.items():
        stream[NameObject(f"/{key}")] = NumberObject(value)
    for key, value in {"Type": "XObject", "Subtype": "Image", "ColorSpace": "DeviceGray"}.items():
        stream[NameObject(f"/{key}")] = NameObject(f"/{value}")
    return stream


def docx_of(write: Callable[[Any], Any]) -> bytes:
    document = docx.Document()
    write(document)
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def with_member(package: bytes, name: str, change: Callable[[bytes], bytes]) -> bytes:
    """A package with one of its members changed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(package)) as old, zipfile.ZipFile(out, "w") as new:
        for item in old.namelist():
            raw = old.read(item)
            new.writestr(item, change(raw) if item == name else raw)
    return out.getvalue()


def add_bold(paragraph: Any, *pieces: str) -> Any:
    """Add text to a paragraph, every other piece bold, beginning with the first."""
    for index, piece in enumerate(pieces):
        paragraph.add_run(piece).bold = True if index % 2 == 0 else None
    return paragraph


def notebook_of(*cells: dict[str, Any], form: int = 4) -> str:
    return json.dumps({"nbformat": form, "metadata": {}, "cells": list(cells)})


def cell(source: Any, kind: str = "markdown", **more: Any) -> dict[str, Any]:
    return {"cell_type": kind, "source": source, **more}


# any format


def test_the_suffixes_are_named():
    assert {"md", "txt", "docx", "pdf", "html", "ipynb"} <= set(loaders.suffixes())


@pytest.mark.parametrize("suffix", ["md", "markdown", "txt", "text", "html", "htm", "MD"])
def test_a_text_reads_the_same_in_every_plain_format(tmp_path: Path, suffix: str):
    assert reads(tmp_path, f"a.{suffix}", "Some words.") == ["Some words."]


def test_an_unknown_suffix_is_refused_and_the_nearest_named(tmp_path: Path):
    refused(tmp_path, "a.docs", "x", r"ends in one of: md, .*Did you mean 'docx'\?")


def test_a_folder_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="is a folder; expected a file"):
        loaders.read(tmp_path)


def test_a_missing_file_is_not_found(tmp_path: Path):
    with pytest.raises(NotFound, match=r"a\.md does not exist"):
        loaders.read(tmp_path / "a.md")


def test_a_broken_link_is_not_found(tmp_path: Path):
    (tmp_path / "a.md").symlink_to(tmp_path / "gone.md")
    with pytest.raises(NotFound, match="is a broken link"):
        loaders.read(tmp_path / "a.md")


def test_a_pipe_is_refused_before_it_is_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "a.md")
    with pytest.raises(InputError, match="is a pipe or a device"):
        loaders.read(tmp_path / "a.md")


@pytest.mark.parametrize("suffix", loaders.LOADERS)
def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path, suffix: str):
    with (tmp_path / f"a.{suffix}").open("wb") as file:
        file.truncate(loaders.MAX_BYTES + 2**20)
    with pytest.raises(InputError, match=r"has 65\.0 MiB; expected at most 64 MiB\. Split it"):
        loaders.read(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("suffix", loaders.LOADERS)
def test_an_empty_file_holds_no_text(tmp_path: Path, suffix: str):
    refused(tmp_path, f"a.{suffix}", b"", "contains no text. Check that it was saved")


@pytest.mark.parametrize("suffix", ["md", "txt", "html"])
def test_a_file_of_blanks_holds_no_text(tmp_path: Path, suffix: str):
    refused(tmp_path, f"a.{suffix}", " \n\n\t\n", "contains no text")


def test_a_document_without_a_word_holds_no_text(tmp_path: Path):
    refused(tmp_path, "a.docx", docx_of(lambda document: None), "contains no text")


def test_a_page_of_comments_holds_no_text(tmp_path: Path):
    refused(tmp_path, "a.html", "<!-- nothing -->", "contains no text")


def test_a_notebook_without_cells_holds_no_text(tmp_path: Path):
    refused(tmp_path, "a.ipynb", notebook_of(), "contains no text")


def test_a_text_that_is_too_long_is_refused(tmp_path: Path):
    refused(tmp_path, "a.txt", "x" * 20_000_001, "more than 20,000,000 characters")


@pytest.mark.parametrize("suffix", ["md", "txt", "ipynb"])
def test_bytes_that_are_not_text_are_named_by_line(tmp_path: Path, suffix: str):
    content = b"\xef\xbb\xbfone\r\ntwo \xff"
    refused(tmp_path, f"a.{suffix}", content, rf"a\.{suffix}:2 is not UTF-8: byte 13 .* 0xff")


def test_utf_16_and_zero_bytes_are_refused(tmp_path: Path):
    refused(tmp_path, "a.md", "words".encode("utf-16"), "is UTF-16; expected UTF-8")
    refused(tmp_path, "b.md", "a\0b", "contains zero bytes")


def raising(error: BaseException) -> Callable[..., Any]:
    def raises(*_: Any, **__: Any) -> Any:
        raise error

    return raises


# a call of each library that its loader makes first
LIBRARIES = {"docx": "docx.package.Package.open", "pdf": "pypdf.PdfReader.__init__"}


@pytest.mark.parametrize("suffix", LIBRARIES)
@pytest.mark.parametrize("error", [ZeroDivisionError("x"), RecursionError("x"), OSError("x")])
def test_any_error_of_a_library_becomes_an_input_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, error: Exception
):
    whole = {"docx": docx_of(lambda document: None), "pdf": pdf_of([word("Words.", 700)])}[suffix]
    monkeypatch.setattr(LIBRARIES[suffix], raising(error))
    refused(tmp_path, f"a.{suffix}", whole, r"can't be read as a .* \(x\)")


@pytest.mark.parametrize("suffix", LIBRARIES)
@pytest.mark.parametrize(
    "error", [MemoryError("x"), KeyboardInterrupt("x"), DataError("the kit's own")]
)
def test_what_is_not_the_file_s_fault_passes_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, error: BaseException
):
    whole = {"docx": docx_of(lambda document: None), "pdf": pdf_of([word("Words.", 700)])}[suffix]
    monkeypatch.setattr(LIBRARIES[suffix], raising(error))
    with pytest.raises(type(error)) as raised:
        loaders.read(saved(tmp_path / f"a.{suffix}", whole))
    assert raised.value is error


@pytest.mark.parametrize("suffix", ["docx", "pdf", "ipynb"])
@settings(max_examples=30, deadline=None)
@given(raw=st.binary(min_size=1, max_size=200))
def test_random_bytes_raise_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, raw: bytes
):
    path = saved(tmp_path_factory.mktemp("rubbish") / f"a.{suffix}", raw)
    with pytest.raises(InputError, match=re.escape(str(path))):
        loaders.read(path)


def test_parsers_are_imported_only_when_a_format_is_read():
    code = "import sys, ftlab_kit.graphs.loaders; print(*sys.modules)"
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert not loaded & {"lxml", "docx", "pypdf"}


# Markdown


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
@settings(deadline=None)
def test_markdown_keeps_every_line_with_its_number(text: str):
    path = Path("/tmp") / f"ftlab-{os.getpid()}.md"
    given_lines = re.split(r"\r\n|\r|\n", f"first\n{text}")
    try:
        lines = markdown.read(saved(path, f"first\n{text}")).lines
    finally:
        path.unlink()
    expected = [Line(line, number) for number, line in enumerate(given_lines, 1) if line]
    assert [line for line in lines if line.text] == expected


def test_front_matter_becomes_labels(tmp_path: Path):
    head = "---\ntitle: 'A: b'\n# not a heading\ntags:\n  - one\nempty:\n---\n# Title\n"
    path = saved(tmp_path / "a.md", head)
    assert [line for line in loaders.read(path).lines if line.text] == [
        Line("**title:** A: b", 2),
        Line("**tags:**", 4),
        Line("  - one", 5),
        Line("**empty:**", 6),
        Line("# Title", 8),
    ]


@pytest.mark.parametrize("text", ["---\nSentence.\n---\n", "---\nkey:\n", "---\n---\nx\n"])
def test_a_rule_at_the_top_is_not_front_matter(tmp_path: Path, text: str):
    assert reads(tmp_path, "a.md", text) == text.split()


def test_a_byte_order_mark_hides_no_heading(tmp_path: Path):
    assert reads(tmp_path, "a.md", b"\xef\xbb\xbf# Title\r\nText\r\n") == ["# Title", "Text"]


def test_pictures_in_markdown_are_counted_outside_code(tmp_path: Path):
    text = "![a](b.png) and <img src=c>\n```\n![no](d.png)\n```\n![e][f]\n"
    assert loaders.read(saved(tmp_path / "a.md", text)).notes == ("3 pictures were not read",)


def test_a_fence_stays_a_fence(tmp_path: Path):
    assert reads(tmp_path, "a.md", "```py\n# no heading\n```") == ["```py", "# no heading", "```"]


# plain text


def test_underlined_lines_are_headings_with_their_own_numbers(tmp_path: Path):
    path = saved(tmp_path / "a.txt", "Guide\n=====\n\nFirst part\n---\ntext\n")
    assert [line for line in loaders.read(path).lines if line.text] == [
        Line("# Guide", 1),
        Line("## First part", 4),
        Line("text", 6),
    ]


def test_a_heading_between_two_rules_is_one_heading(tmp_path: Path):
    assert reads(tmp_path, "a.txt", "=====\nGuide\n=====\ntext") == ["# Guide", "text"]


def test_lines_in_capitals_are_headings(tmp_path: Path):
    text = "SETUP GUIDE:\nDo this.\n\nTHIS IS A LEGAL TEXT\nALL IN CAPITALS\n\nSTOP!\n\nOK\n"
    assert reads(tmp_path, "a.txt", text) == [
        "# SETUP GUIDE",
        "Do this.",
        "THIS IS A LEGAL TEXT",
        "ALL IN CAPITALS",
        "STOP!",
        "OK",
    ]


def test_numbered_lines_alone_are_headings(tmp_path: Path):
    text = "3 Models\n\n3.2 Title Here\n\nSome text.\n\n3.2 is a number, no title\n"
    assert reads(tmp_path, "a.txt", text)[:3] == ["# 3 Models", "## 3.2 Title Here", "Some text."]
    assert reads(tmp_path, "a.txt", text)[3].startswith("3.2 is")


def test_a_numbered_list_with_blank_lines_stays_a_list(tmp_path: Path):
    text = "1. Open it\n\n2. Close it\n\n3. Leave\n"
    assert reads(tmp_path, "a.txt", text) == ["1. Open it", "2. Close it", "3. Leave"]


def test_other_headings_are_below_an_underlined_title(tmp_path: Path):
    text = "Guide\n=====\n\nOVERVIEW\ntext\n\n1.1 Part\n\ntext\n"
    assert reads(tmp_path, "a.txt", text)[1:4:2] == ["## OVERVIEW", "### 1.1 Part"]


def test_labels_are_recognised_by_their_neighbours(tmp_path: Path):
    text = "Model ID: o3\nContext Window: 256K\n\nNote: a line by itself.\n\nprice: 1\nsize: 2\n"
    assert reads(tmp_path, "a.txt", text) == [
        "**Model ID:** o3",
        "**Context Window:** 256K",
        "Note: a line by itself.",
        "price: 1",
        "size: 2",
    ]


def test_a_key_above_its_list_is_a_label(tmp_path: Path):
    assert reads(tmp_path, "a.txt", "Pricing:\n• low\n  – lower\n* * *") == [
        "**Pricing:**",
        "- low",
        "  - lower",
        "* * *",
    ]


def test_code_in_a_text_file_is_left_alone(tmp_path: Path):
    lines = ["```", "", "CAPITALS", "• dot", "A: 1", "B: 2", "```", "    INDENTED"]
    assert reads(tmp_path, "a.txt", "\n".join(lines)) == [line for line in lines if line]


# Word


def test_word_styles_become_headings_and_lists(tmp_path: Path):
    def write(document: Any) -> None:
        document.add_heading("Guide", 0)
        document.add_heading("Part", 2)
        document.add_paragraph("one", style="List Bullet")
        document.add_paragraph("two", style="List Bullet 2")
        document.add_paragraph("three", style="List Number")
        document.add_paragraph("•\tfour")

    assert reads(tmp_path, "a.docx", docx_of(write)) == [
        "# Guide",
        "## Part",
        "- one",
        "  - two",
        "- three",
        "- four",
    ]


def test_word_numbers_count_paragraphs_and_rows(tmp_path: Path):
    def write(document: Any) -> None:
        document.add_paragraph("before")
        document.add_paragraph("")
        table = document.add_table(2, 2)
        for index, text in enumerate(["Name", "a|b", "x", "y"]):
            table.cell(index // 2, index % 2).text = text
        document.add_paragraph("after")

    lines = loaders.read(saved(tmp_path / "a.docx", docx_of(write))).lines
    assert [line for line in lines if line.text] == [
        Line("before", 1),
        Line("| Name | a\\|b |", 3),
        Line("| --- | --- |", 3),
        Line("| x | y |", 4),
        Line("after", 5),
    ]


def test_word_tables_with_merged_cells_keep_their_columns(tmp_path: Path):
    def write(document: Any) -> None:
        table = document.add_table(3, 3)
        for row in range(3):
            for column in range(3):
                table.cell(row, column).text = f"{row}{column}"
        table.cell(1, 0).merge(table.cell(2, 0)).text = "down"
        table.cell(1, 1).merge(table.cell(1, 2)).text = "across"

    lines = reads(tmp_path, "a.docx", docx_of(write))
    assert lines[2:] == ["| down | across |  |", "| down | 21 | 22 |"]


def test_word_bold_is_marked_though_split_in_runs(tmp_path: Path):
    def write(document: Any) -> None:
        add_bold(document.add_paragraph(), "Mod", "", "el", " ", "ID: ", "o3-pro")
        document.add_paragraph().add_run("Strong", style="Strong")

    assert reads(tmp_path, "a.docx", docx_of(write)) == ["**Model ID:** o3-pro", "**Strong**"]


def test_word_line_breaks_make_lines_of_one_paragraph(tmp_path: Path):
    def write(document: Any) -> None:
        paragraph = add_bold(document.add_paragraph(), "Provider:", " OpenAI")
        paragraph.add_run().add_break()
        add_bold(paragraph, "Badge:", " New")
        paragraph.add_run().add_break(WD_BREAK.PAGE)

    lines = loaders.read(saved(tmp_path / "a.docx", docx_of(write))).lines
    assert [line for line in lines if line.text] == [
        Line("**Provider:** OpenAI", 1),
        Line("**Badge:** New", 1),
    ]


def test_word_code_is_fenced_and_never_a_heading(tmp_path: Path):
    def write(document: Any) -> None:
        for text in ("# install", "  pip"):
            document.add_paragraph().add_run(text).font.name = "Courier New"
        document.add_paragraph("# shown as it is")
        paragraph = document.add_paragraph("see ")
        paragraph.add_run("GET /x").font.name = "Consolas"

    assert reads(tmp_path, "a.docx", docx_of(write)) == [
        "```",
        "# install",
        "  pip",
        "```",
        "\\# shown as it is",
        "see `GET /x`",
    ]


def test_word_changes_are_read_as_accepted(tmp_path: Path):
    def write(document: Any) -> None:
        paragraph = document.add_paragraph("kept ")
        for tag, text in (("w:ins", "added"), ("w:moveFrom", "moved away")):
            change = OxmlElement(tag)
            change.append(paragraph.add_run(text)._r)
            paragraph._p.append(change)
        paragraph.add_run(" hidden").font.hidden = True

    assert reads(tmp_path, "a.docx", docx_of(write)) == ["kept added"]


def test_word_content_controls_are_read(tmp_path: Path):
    def write(document: Any) -> None:
        heading = document.add_heading("In a control", 1)._p
        control, content = OxmlElement("w:sdt"), OxmlElement("w:sdtContent")
        heading.addprevious(control)
        control.append(content)
        content.append(heading)

    assert reads(tmp_path, "a.docx", docx_of(write)) == ["# In a control"]


def test_word_headings_are_recognised_by_a_derived_style(tmp_path: Path):
    def write(document: Any) -> None:
        style = document.styles.add_style("Kapitel", 1)
        style.base_style = document.styles["Heading 2"]
        document.add_paragraph("Eins", style="Kapitel")
        document.styles.add_style("toc 1", 1)
        document.add_paragraph("Eins\t3", style="toc 1")

    assert reads(tmp_path, "a.docx", docx_of(write)) == ["## Eins"]


def test_word_notes_what_was_not_read(tmp_path: Path):
    def write(document: Any) -> None:
        document.add_picture(io.BytesIO(DOT))
        document.add_paragraph("text")
        document.sections[0].header.paragraphs[0].text = "head"
        relate = document.part.relate_to
        relate("http://localhost:1/t.dotx", TEMPLATE, is_external=True)
        relate("http://localhost:1/page", RELATIONSHIP_TYPE.HYPERLINK, is_external=True)

    assert loaders.read(saved(tmp_path / "a.docx", docx_of(write))).notes == (
        "1 picture was not read",
        "1 header was not read",
        "1 linked part (attachedTemplate) not fetched",
    )


def test_an_encrypted_word_file_is_refused(tmp_path: Path):
    content = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
    refused(tmp_path, "a.docx", content, r"is encrypted or an old \.doc.*save as \.docx without")


def test_a_zip_that_is_not_a_word_file_is_refused(tmp_path: Path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as package:
        package.writestr("a.txt", "words")
    refused(tmp_path, "a.docx", out.getvalue(), "can't be read as a Word document")
    refused(tmp_path, "b.docx", out.getvalue()[:-10], r"is not a \.docx, or was cut off")


def test_a_zip_bomb_is_refused_unopened(tmp_path: Path):
    path, block = tmp_path / "a.docx", bytes(2**20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as package:
        with package.open("word/document.xml", "w", force_zip64=True) as member:
            for _ in range(600):
                member.write(block)
    with pytest.raises(
        InputError, match=r"unpacks into too much: word/document\.xml is compressed"
    ):
        loaders.read(path)


def test_a_bomb_in_many_parts_is_refused(tmp_path: Path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as package:
        for number in range(140):
            package.writestr(f"word/{number}.xml", bytes(2**20))
    refused(tmp_path, "a.docx", out.getvalue(), r"140 MiB of it text; expected at most 512 MiB")


def laughing(raw: bytes) -> bytes:
    """XML whose entities stand for each other, ten of the next in each."""
    levels = [f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10)]
    head = f'<!DOCTYPE d [<!ENTITY l0 "haha">{"".join(levels)}]>'.encode()
    declaration, _, rest = raw.partition(b"?>")
    return declaration + b"?>" + head + rest.replace(b"PLACE", b"&l9;")


def test_entities_that_multiply_are_refused(tmp_path: Path):
    plain = docx_of(lambda document: document.add_paragraph("PLACE stays small"))
    bomb = with_member(plain, "word/document.xml", laughing)
    refused(tmp_path, "a.docx", bomb, "can't be read as a Word document .*[Ee]ntit")


def test_entities_that_multiply_are_refused_in_attributes(tmp_path: Path):
    plain = docx_of(lambda document: document.add_paragraph("words"))
    bomb = with_member(
        plain,
        "word/document.xml",
        lambda raw: laughing(raw.replace(b"<w:body>", b'<w:body w:rsid="PLACE">')),
    )
    refused(tmp_path, "a.docx", bomb, "can't be read as a Word document .*[Ee]ntit")


def test_an_entity_of_a_file_is_refused(tmp_path: Path):
    secret = saved(tmp_path / "secret", "the secret")
    head = f'?><!DOCTYPE d [<!ENTITY s SYSTEM "{secret.as_uri()}">]>'.encode()
    plain = docx_of(lambda document: document.add_paragraph("PLACE words"))
    leaky = with_member(
        plain,
        "word/document.xml",
        lambda raw: raw.replace(b"?>", head, 1).replace(b"PLACE", b"&s;"),
    )
    refused(tmp_path, "a.docx", leaky, "it declares entities, which no office program does")


# PDF


def test_pdf_sizes_become_headings_and_bold_is_marked(tmp_path: Path):
    page = [
        word("The guide", 740, size=20),
        word("A part", 700, size=14),
        Ink([("Model ID:", "b"), (" o3-pro, by ", ""), ("GET /x", "c")], 670),
        word("Body text that is the most common here.", 640),
    ]
    assert reads(tmp_path, "a.pdf", pdf_of(page)) == [
        "# The guide",
        "## A part",
        "**Model ID:** o3-pro, by `GET /x`",
        "Body text that is the most common here.",
    ]


def test_pdf_lines_have_their_page(tmp_path: Path):
    content = pdf_of([word("One.", 700), word("Two.", 650)], [word("Three.", 700)])
    lines = loaders.read(saved(tmp_path / "a.pdf", content)).lines
    assert [line for line in lines if line.text] == [
        Line("One.", 1, "page 1"),
        Line("Two.", 2, "page 1"),
        Line("Three.", 1, "page 2"),
    ]


def test_pdf_bullets_nest_by_position(tmp_path: Path):
    page = [
        word("Things", 740, size=16),
        word("• outer", 700, x=80),
        word("– inner", 688, x=100),
        word("- outer again", 676, x=80),
    ]
    lines = reads(tmp_path, "a.pdf", pdf_of(page))
    assert lines[1:] == ["- outer", "  - inner", "- outer again"]


def test_pdf_lists_without_bullets_are_recognised_by_indent(tmp_path: Path):
    page = [
        word("Things", 740, size=16),
        word("Here they are.", 710),
        word("first", 690, x=100),
        word("1. counted", 660, x=100),
        word("deeper", 630, x=130),
        word("deeper still", 600, x=130),
    ]
    assert reads(tmp_path, "a.pdf", pdf_of(page))[2:] == [
        "- first",
        "1. counted",
        "  - deeper",
        "  - deeper still",
    ]


def test_pdf_wrapped_lines_are_joined_and_keep_the_first_number(tmp_path: Path):
    page = [
        word("This sentence is long enough to be broken by", 700),
        word("the width of the page, as is Every One", 688),
        word("of them.", 676),
        word("Alone", 664),
    ]
    lines = loaders.read(saved(tmp_path / "a.pdf", pdf_of(page))).lines
    assert [line.number for line in lines if line.text] == [1, 4]
    assert lines[0].text.endswith("broken by the width of the page, as is Every One of them.")


def test_pdf_hyphenated_words_are_joined_if_the_word_occurs_elsewhere(tmp_path: Path):
    page = [
        word("An example is the begin. This is fine-", 700),
        word("tuning, and this line holds another exam-", 688),
        word("ple of it.", 676),
    ]
    assert reads(tmp_path, "a.pdf", pdf_of(page)) == [
        "An example is the begin. This is fine-tuning, and this line holds another example of it."
    ]


def test_pdf_labels_are_not_joined(tmp_path: Path):
    page = [
        Ink([("Model ID:", "b"), (" o3-pro", "")], 700),
        Ink([("Provider:", "b"), (" OpenAI", "")], 688),
    ]
    assert reads(tmp_path, "a.pdf", pdf_of(page)) == [
        "**Model ID:** o3-pro",
        "**Provider:** OpenAI",
    ]


def test_pdf_code_is_fenced_with_its_indent(tmp_path: Path):
    page = [
        word("Run this, and look at what it says then.", 700),
        Ink([("def f():", "c")], 680),
        Ink([("return 1", "c")], 668, x=72 + 4 * 6),
    ]
    assert reads(tmp_path, "a.pdf", pdf_of(page))[1:] == ["```", "def f():", "    return 1", "```"]


def test_pdf_repeated_headers_and_page_numbers_are_left_out(tmp_path: Path):
    pages = [
        [word("The Lab", 770), word(f"Text of page {n}.", 600), word(f"Page {n} of 4", 20)]
        for n in range(1, 5)
    ]
    text = loaders.read(saved(tmp_path / "a.pdf", pdf_of(*pages)))
    assert texts(text) == ["The Lab", *(f"Text of page {n}." for n in range(1, 5))]
    assert text.notes == ("7 repeated header or footer lines left out",)


def test_pdf_slanted_stamps_are_left_out(tmp_path: Path):
    plain = pdf_of([word("Words.", 700), word("DRAFT", 300)])
    # 45 degrees: the matrix takes the place of the move
    stamped = plain.replace(b"72 300 Td", b".7 .7 -.7 .7 72 300 Tm")
    text = loaders.read(saved(tmp_path / "a.pdf", stamped))
    assert texts(text) == ["Words."]
    assert text.notes == ("slanted text, such as a stamp, was not read",)


def test_pdf_pages_without_text_are_named(tmp_path: Path):
    content = pdf_of([word("Words.", 700)], b"\x10", b"\x20", [])
    assert loaders.read(saved(tmp_path / "a.pdf", content)).notes == (
        "2 pictures were not read",
        "pages 2-3 have no text: scanned, needs OCR",
    )


def test_a_pdf_of_scans_needs_ocr(tmp_path: Path):
    refused(tmp_path, "a.pdf", pdf_of(b"\x10"), "contains no text.*it needs OCR")


def test_a_pdf_with_a_password_is_refused(tmp_path: Path):
    content = pdf_of([word("Words.", 700)], password="secret")
    refused(tmp_path, "a.pdf", content, "is encrypted; expected a PDF that opens without")


def test_a_pdf_encrypted_with_aes_is_refused(tmp_path: Path):
    key, short = b"<" + b"00" * 48 + b">", b"<" + b"00" * 32 + b">"
    encrypt = (
        b"<</Filter/Standard/V 5/R 6/Length 256/P -4/CF<</S<</CFM/AESV3>>>>/StmF/S/StrF/S"
        b"/O%s/U%s/OE%s/UE%s/Perms<%s>>>" % (key, key, short, short, b"00" * 16)
    )
    body = b"%PDF-2.0\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    body += b"2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n"
    content = body + b"trailer<</Root 1 0 R/ID[<00><00>]/Encrypt%s>>\n" % encrypt
    refused(tmp_path, "a.pdf", content + b"startxref\n0\n%%EOF", "is encrypted")


def test_a_pdf_that_opens_without_its_password_is_read(tmp_path: Path):
    assert reads(tmp_path, "a.pdf", pdf_of([word("Words.", 700)], password="")) == ["Words."]


def test_a_pdf_that_was_cut_off_is_refused_and_a_lost_table_repaired(tmp_path: Path):
    whole = pdf_of([word("Words.", 700)])
    refused(tmp_path, "a.pdf", whole[:60], "can't be read as a PDF .*cut off")
    moved = whole.replace(b"startxref\n", b"startxref\n9")
    assert reads(tmp_path, "b.pdf", moved) == ["Words."]


def test_a_pdf_with_too_many_pages_is_refused(tmp_path: Path):
    pages = PdfWriter()
    for _ in range(2001):
        pages.add_blank_page(9, 9)
    out = io.BytesIO()
    pages.write(out)
    refused(tmp_path, "a.pdf", out.getvalue(), r"has 2,001 pages; expected at most 2,000\. Split")


def test_a_pdf_that_unpacks_into_too_much_is_refused(tmp_path: Path):
    packed = zlib.compress(bytes(300 * 2**20), 1)
    writer = PdfWriter()
    page = writer.add_blank_page(9, 9)
    stream = StreamObject()
    stream._data = packed
    stream[NameObject("/Filter")] = NameObject("/FlateDecode")
    page[NameObject("/Contents")] = writer._add_object(stream)
    page[NameObject("/Resources")] = DictionaryObject(
        {NameObject("/Font"): DictionaryObject({NameObject("/F"): font_object("Helvetica")})}
    )
    out = io.BytesIO()
    writer.write(out)
    refused(tmp_path, "a.pdf", out.getvalue(), "unpacks into too much")


# HTML


def test_html_blocks_become_markdown(tmp_path: Path):
    page = """<!doctype html><title>x</title><nav>menu</nav>
<h1>The <b>guide</b><br>here</h1>
<p>One <strong>Label:</strong> and <code>GET /x</code>
  of <a href="http://localhost:1/">a link</a>.<br># no heading</p>
<ul><li>a<ul><li>b</li></ul></li><li><p>c</p><p>more</p></li></ul>
<script>x</script><p hidden>y</p><p style="display:none">z</p>"""
    lines = loaders.read(saved(tmp_path / "a.html", page)).lines
    assert [line for line in lines if line.text] == [
        Line("# The guide here", 2),
        Line("One **Label:** and `GET /x` of a link.", 3),
        Line("\\# no heading", 4),
        Line("- a", 5),
        Line("  - b", 5),
        Line("- c", 5),
        Line("  more", 5),
    ]


def test_html_tables_keep_their_columns(tmp_path: Path):
    page = """<table><tr><th>A<th colspan=2>B|C</tr>
<tr><td rowspan=2>1<td>x<br>y<td>z<tr><td>2<td>3</table>
<table><tr><td>alone</table><table><tr><td><table><tr><td>p<td>q</table></table>"""
    assert reads(tmp_path, "a.html", page) == [
        "| A | B\\|C |  |",
        "| --- | --- | --- |",
        "| 1 | x y | z |",
        "| 1 | 2 | 3 |",
        "alone",
        "| p | q |",
        "| --- | --- |",
    ]


def test_a_staircase_of_spanning_cells_does_not_grow_without_limit(tmp_path: Path):
    rows = "".join(f"<tr><td rowspan=9999>{number}</td></tr>" for number in range(1000))
    lines = reads(tmp_path, "a.html", f"<table>{rows}</table>")
    assert len(lines) == 1001 and lines[-1].count("|") == 102


def test_html_definitions_become_labels(tmp_path: Path):
    page = "<dl><dt>One:<dd>first<dd>second<dt>Two<dd><p>a</p><p>b</p><dt>Three</dl>"
    assert reads(tmp_path, "a.html", page) == [
        "- **One:** first",
        "- **One:** second",
        "- **Two:** a",
        "  b",
        "- Three",
    ]


def test_html_code_is_fenced_and_counts_its_lines(tmp_path: Path):
    page = (
        '<p>x</p>\n<pre><code class="language-python">\ndef f():\n    return "```"\n</code></pre>'
    )
    lines = loaders.read(saved(tmp_path / "a.html", page)).lines
    assert [line for line in lines if line.text][1:] == [
        Line("```python", 3),
        Line("def f():", 3),
        Line('    return "```"', 4),
        Line("```", 4),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252", "utf-8-sig"])
def test_html_is_read_in_its_encoding(tmp_path: Path, encoding: str):
    assert reads(tmp_path, "a.html", "<p>Größe “x”</p>".encode(encoding)) == ["Größe “x”"]


def test_html_can_declare_its_encoding(tmp_path: Path):
    page = '<meta charset="iso-8859-2"><p>łódź</p>'.encode("iso-8859-2")
    assert reads(tmp_path, "a.html", page) == ["łódź"]


def test_html_nested_too_deep_is_refused_instead_of_cut(tmp_path: Path):
    page = "<div>" * 400 + "words" + "</div>" * 400
    refused(tmp_path, "a.html", page, "nested more than 256 deep")


def test_html_entities_and_pictures_load_nothing(tmp_path: Path):
    secret = saved(tmp_path / "secret", "the secret")
    page = f'<!DOCTYPE x [<!ENTITY s SYSTEM "{secret.as_uri()}">]><p>a &amp; &s; <img src=x></p>'
    text = loaders.read(saved(tmp_path / "a.html", page))
    assert "secret" not in " ".join(texts(text)) and text.notes == ("1 picture was not read",)


# notebooks


def test_notebook_cells_are_parts(tmp_path: Path):
    content = notebook_of(
        cell(["# Title\n", "words"]), cell("x = 1\ny = 2", "code", outputs=[{}]), cell("", "code")
    )
    text = loaders.read(saved(tmp_path / "a.ipynb", content))
    assert [line for line in text.lines if line.text] == [
        Line("# Title", 1, "cell 1"),
        Line("words", 2, "cell 1"),
        Line("```python", 1, "cell 2"),
        Line("x = 1", 1, "cell 2"),
        Line("y = 2", 2, "cell 2"),
        Line("```", 2, "cell 2"),
    ]
    assert text.notes == ("1 output was not read",)


def test_a_broken_notebook_is_refused_with_its_place(tmp_path: Path):
    refused(tmp_path, "a.ipynb", '{\n"cells": [,]}', r"a\.ipynb:2 is not JSON at column 11")
    refused(tmp_path, "b.ipynb", "[" * 100_000, "nested too deep")
    refused(tmp_path, "c.ipynb", "[]", "is not a Jupyter notebook: it has no nbformat")


def test_an_old_notebook_is_refused(tmp_path: Path):
    refused(tmp_path, "a.ipynb", notebook_of(form=3), "of format 3; expected format 4.*nbconvert")


@pytest.mark.parametrize("old", ["<w:pStyle w:val=", "<w:ilvl w:val=", "<w:tc>", "word/styles"])
def test_a_word_file_that_breaks_the_format_raises_an_input_error(tmp_path: Path, old: str):
    def write(document: Any) -> None:
        document.add_paragraph("one", style="List Bullet")
        document.add_table(1, 1).cell(0, 0).text = "two"

    whole, outcome = docx_of(write), ""
    new = old.encode().replace(b"val", b"none").replace(b"<w:tc>", b"<w:tc><w:tcPr x='")
    content = with_member(whole, "word/document.xml", lambda raw: raw.replace(old.encode(), new))
    path = saved(tmp_path / "a.docx", content)
    try:
        outcome = " ".join(texts(loaders.read(path)))
    except InputError as error:
        outcome = str(error)
    assert "can't be read as a Word document" in outcome or outcome == "- one two"


# blank lines between blocks


def test_blocks_are_separated_and_list_items_are_not():
    given_texts = ["# A", "text", "- a", "  - b", "| x |", "| - |", "```", "# c", "d", "```", "e"]
    lines = [line.text for line in blocks.with_blank_lines(Line(text, 1) for text in given_texts)]
    assert "\n".join(lines) == (
        "# A\n\ntext\n\n- a\n  - b\n\n| x |\n| - |\n\n```\n# c\nd\n```\n\ne"
    )


# one document in every format


class Shape(NamedTuple):
    headings: list[tuple[int, str]]
    labels: list[str]
    items: int


def shape_of(text: Text) -> Shape:
    lines = [line.text for line in text.lines]
    prose = list(markdown.outside_fences(lines))
    headings = [match for line in prose if (match := re.fullmatch(r"(#+) (.*)", line))]
    return Shape(
        [(len(match[1]), match[2]) for match in headings],
        [label for line in prose for label in re.findall(r"\*\*(.+?)\*\*", line)],
        sum(bool(re.match(r"\s*- ", line)) for line in prose),
    )


class Part(NamedTuple):
    kind: str  # heading, item, code, text
    level: int
    text: str


def parts_of(source: str) -> Iterator[Part]:
    """The parts of a document, line by line."""
    is_code = False
    for line in source.split("\n"):
        heading, item = re.fullmatch(r"(#+) (.*)", line), re.fullmatch(r"( *)- (.*)", line)
        if line.startswith("```"):
            is_code = not is_code
        elif is_code:
            yield Part("code", 0, line)
        elif heading:
            yield Part("heading", len(heading[1]), heading[2])
        elif item:
            yield Part("item", len(item[1]) // 2, item[2])
        elif line.strip() and line != "---":
            yield Part("text", 0, line.strip())


def runs_of(text: str) -> list[tuple[str, str]]:
    """Its pieces, each with the font that it is in."""
    pieces = re.split(r"(\*\*.+?\*\*|`[^`]+`)", text)
    fonts = {"*": "b", "`": "c"}
    return [(p.strip("*`"), fonts.get(p[0], "") if p[-1] == p[0] else "") for p in pieces if p]


def as_docx(source: str) -> bytes:
    def write(document: Any) -> None:
        for kind, level, text in parts_of(source):
            if kind == "heading":
                document.add_heading(text, level)
                continue
            style = f"List Bullet{f' {level + 1}' if level else ''}" if kind == "item" else None
            paragraph = document.add_paragraph(style=style)
            for piece, font in [(text, "c")] if kind == "code" else runs_of(text):
                run = paragraph.add_run(piece)
                run.bold = font == "b" or None
                run.font.name = "Courier New" if font == "c" else None

    return docx_of(write)


def wrapped(runs: list[tuple[str, str]], width: int) -> Iterator[list[tuple[str, str]]]:
    """Runs broken into lines where the words of the whole text break."""
    fonts = [font for text, font in runs for _ in text]
    text, at = "".join(text for text, _ in runs), 0
    for line in textwrap.wrap(text, width, break_on_hyphens=False) or [""]:
        at = text.index(line, at)
        yield [(letter, fonts[at + index]) for index, letter in enumerate(line)]
        at += len(line)


def inked(line: list[tuple[str, str]], y: float, x: float, size: float) -> Ink:
    pieces: list[tuple[str, str]] = []
    for letter, font in line:
        same = bool(pieces) and pieces[-1][1] == font
        pieces[-1:] = [(pieces[-1][0] + letter, font)] if same else [*pieces[-1:], (letter, font)]
    return Ink(pieces, y, x, size)


def as_pdf(source: str) -> bytes:
    pages: list[list[Ink]] = [[]]
    y = 740.0
    for kind, level, text in parts_of(source):
        size = {1: 20, 2: 16, 3: 13}[level] if kind == "heading" else 10
        runs = {"heading": [(text, "b")], "code": [(text or " ", "c")]}.get(kind) or runs_of(text)
        if kind == "item":
            runs = [("• ", ""), *runs]
        lines = [runs] if kind == "code" else wrapped(runs, 950 // size)
        y -= 0 if kind == "code" else size * 0.8
        for line in lines:
            y -= size * 1.2
            if y < 50:
                pages.append([])
                y = 740.0
            x = 72 + 18 * (level + 1) if kind == "item" else 72
            pages[-1].append(inked([(c, font) for part, font in line for c in part], y, x, size))
    return pdf_of(*pages)


def as_html(source: str) -> str:
    def shown(text: str) -> str:
        tags = {"b": "<b>{}</b>", "c": "<code>{}</code>", "": "{}"}
        safe = text.replace("&", "&amp;").replace("<", "&lt;")
        return "".join(tags[font].format(piece) for piece, font in runs_of(safe))

    forms = {
        "heading": lambda part: f"<h{part.level}>{shown(part.text)}</h{part.level}>",
        "item": lambda part: f"{'<ul>' * part.level}<li>{shown(part.text)}{'</ul>' * part.level}",
        "code": lambda part: f"<pre>{part.text}</pre>" if part.text else "",
        "text": lambda part: f"<p>{shown(part.text)}</p>",
    }
    return "\n".join(forms[part.kind](part) for part in parts_of(source))


WRITERS: dict[str, Callable[[str], str | bytes]] = {
    "md": lambda source: source,
    "txt": lambda source: source,
    "docx": as_docx,
    "pdf": as_pdf,
    "html": as_html,
}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_document_has_the_same_shape_in_every_format(tmp_path: Path, source: Path, suffix: str):
    expected = shape_of(loaders.read(source))
    path = saved(tmp_path / f"a.{suffix}", WRITERS[suffix](source.read_text()))
    shape = shape_of(loaders.read(path))
    assert len(shape.headings) == N_HEADINGS[source.name]
    assert shape == expected
