"""Text that fits, by any measure."""

from __future__ import annotations

import pytest

from chextools.plumbing.lettering import broken, has_letter, shortened, unaccented, width_of


def up_to(letters: int):
    return lambda text: len(text) <= letters


@pytest.mark.parametrize(
    "letters, at_end, in_middle",
    [
        (15, "pleural effusion"[:14] + "…", "pleural…ffusion"),
        (9, "pleural…", "pleu…sion"),  # no blank before the ellipsis
        (2, "p…", "p…"),
        (1, "", ""),
        (16, "pleural effusion", "pleural effusion"),
    ],
)
def test_what_does_not_fit_is_cut_at_its_end_or_in_its_middle(letters, at_end, in_middle):
    assert shortened("pleural effusion", up_to(letters)) == at_end
    assert shortened("pleural effusion", up_to(letters), middle=True) == in_middle


def test_endless_text_is_cut_without_a_look_at_all_of_it():
    asked = []
    found = shortened("x" * 10**6, lambda text: asked.append(text) or len(text) < 100)
    assert found == "x" * 98 + "…" and len(asked) < 12


def test_lines_are_broken_after_blanks_or_other_characters():
    text = "Enlarged Cardiomediastinum and heart"
    assert broken(text, up_to(13)) == ["Enlarged", "Cardiomediastinum and heart"]
    assert broken(text, up_to(13), lines=4) == ["Enlarged", "Cardiomediastinum", "and heart"]
    assert broken("run-of_a/name", up_to(7), lines=3, after="-_/") == ["run-of_", "a/name"]
    assert broken("", up_to(7)) == broken("  ", up_to(7)) == []


def test_letters_that_the_font_has():
    assert unaccented("Ödème ﬁ") == "Odeme fi"
    assert all(map(has_letter, "aZ09 .")) and not has_letter("你")
    assert width_of("WW", 20) == pytest.approx(2 * width_of("W", 20)) and width_of("W", 40) > 1.8 * width_of("W", 20)
