"""The table of languages against the tables of Belebele and of Joshi et al., and against the tasks."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from jaxprefix.tasks import TASKS
from jaxprefix.tasks.languages import LANGUAGES, find_language, languages_of, same_language

# The codes of the 122 variants, from the table of github.com/facebookresearch/belebele (whose ary_arab is ary_Arab).
BELEBELE = """
acm_Arab afr_Latn als_Latn amh_Ethi apc_Arab arb_Arab arb_Latn ars_Arab ary_Arab arz_Arab asm_Beng azj_Latn
bam_Latn ben_Beng ben_Latn bod_Tibt bul_Cyrl cat_Latn ceb_Latn ces_Latn ckb_Arab dan_Latn deu_Latn ell_Grek eng_Latn
est_Latn eus_Latn fin_Latn fra_Latn fuv_Latn gaz_Latn grn_Latn guj_Gujr hat_Latn hau_Latn heb_Hebr hin_Deva hin_Latn
hrv_Latn hun_Latn hye_Armn ibo_Latn ilo_Latn ind_Latn isl_Latn ita_Latn jav_Latn jpn_Jpan kac_Latn kan_Knda kat_Geor
kaz_Cyrl kea_Latn khk_Cyrl khm_Khmr kin_Latn kir_Cyrl kor_Hang lao_Laoo lin_Latn lit_Latn lug_Latn luo_Latn lvs_Latn
mal_Mlym mar_Deva mkd_Cyrl mlt_Latn mri_Latn mya_Mymr nld_Latn nob_Latn npi_Deva npi_Latn nso_Latn nya_Latn ory_Orya
pan_Guru pbt_Arab pes_Arab plt_Latn pol_Latn por_Latn ron_Latn rus_Cyrl shn_Mymr sin_Latn sin_Sinh slk_Latn slv_Latn
sna_Latn snd_Arab som_Latn sot_Latn spa_Latn srp_Cyrl ssw_Latn sun_Latn swe_Latn swh_Latn tam_Taml tel_Telu tgk_Cyrl
tgl_Latn tha_Thai tir_Ethi tsn_Latn tso_Latn tur_Latn ukr_Cyrl urd_Arab urd_Latn uzn_Latn vie_Latn war_Latn wol_Latn
xho_Latn yor_Latn zho_Hans zho_Hant zsm_Latn zul_Latn""".split()
# The classes 2 to 5 of Joshi et al. (2020), complete as far as this table has their languages: ISO 639-3 of lang2tax.
JOSHI = {
    5: "eng spa deu jpn fra arb zho",
    4: "swe tur kor hin pes por ces rus nld pol hrv ita vie eus hun fin srp cat",
    3: "ukr ceb arz lvs ind afr ell heb zsm tha kat dan tgl slv tam kaz ron bul uzn lit est slk ben urd",
    2: "amh hat hau isl lao mar mlt pan swh tir tsn wol xho yor zul",
    0: "shn pcm",
}
UNLISTED = "acm apc ars ary kac kea luo"


def test_belebele_has_its_122_variants():
    assert len(BELEBELE) == 122
    assert [language.flores for language in languages_of("belebele")] == BELEBELE


def test_codes_are_unique_and_whole():
    codes = Counter(code for language in LANGUAGES for code in (language.flores, language.bcp47))
    assert [code for code, count in codes.items() if count > 1] == []
    for language in LANGUAGES:
        assert language.flores == f"{language.flores[:3]}_{language.script}"
        assert language.name and language.family
        # A tag of two letters where there is one; other letters than its own are told by the script.
        assert language.bcp47.split("-")[0].islower() and len(language.bcp47.split("-")[0]) <= 3
        if len(language.bcp47.split("-")[0]) == 3:
            assert language.bcp47 == language.flores[:3]
        if "-" in language.bcp47:
            assert language.bcp47.endswith("-" + language.script)


@pytest.mark.parametrize(
    ("code", "family"),
    [
        ("nya_Latn", "Atlantic-Congo"),
        ("tso_Latn", "Atlantic-Congo"),
        ("hat_Latn", "Indo-European"),
        ("pbt_Arab", "Indo-European"),
        ("luo_Latn", "Nilotic"),
        ("kat_Geor", "Kartvelian"),
        ("swh_Latn", "Atlantic-Congo"),
        ("mlt_Latn", "Afro-Asiatic"),
    ],
)
def test_families_that_belebeles_table_has_wrong_or_that_surprise(code: str, family: str):
    language = find_language(code)
    assert language and language.family == family


def test_resources_are_the_classes_of_joshi_et_al():
    for level, codes in JOSHI.items():
        assert {each.flores[:3] for each in LANGUAGES if each.resource == level} == set(codes.split())
    assert {each.flores[:3] for each in LANGUAGES if each.resource is None} == set(UNLISTED.split())
    assert {each.resource for each in LANGUAGES} == {0, 1, 2, 3, 4, 5, None}


def test_words_are_those_of_fineweb2():
    """Some rows of fineweb2-language-distribution.csv, among them those under another code and in another script."""
    words = {
        "deu_Latn": 262_271_052_199,
        "swh_Latn": 569_542_024,
        "fuv_Latn": 507_948,
        "hin_Deva": 11_173_681_651,
        "hin_Latn": 100_975_057,
        "est_Latn": 6_564_292_000,
        "pes_Arab": 39_705_799_658,
        "tgl_Latn": 1_636_238_017,
        "grn_Latn": 6_568_686,
        "zho_Hans": 543_543_038_750,
        "zho_Hant": 543_543_038_750,
    }
    assert words == {language.flores: language.words for language in LANGUAGES if language.flores in words}
    assert {language.flores for language in LANGUAGES if language.words is None} == {"eng_Latn", "sin_Latn"}
    by_class = [[each.words for each in LANGUAGES if each.resource == level and each.words] for level in range(1, 6)]
    middle = [sorted(part)[len(part) // 2] for part in by_class]
    assert middle == sorted(middle)  # in languages of a higher class there is more text


def test_every_language_of_a_task_is_in_the_table_and_named_there():
    for task in TASKS:
        languages = [find_language(code) for code in task.languages]
        assert None not in languages
        assert len(set(languages)) == len(task.languages)
        if not task.eval_tasks or task.name in task.eval_tasks:  # the tasks that evaluate
            assert set(languages) == set(languages_of(task.name)), task.name
    assert {name for language in LANGUAGES for name in language.benchmarks} <= {task.name for task in TASKS}


def test_a_language_is_found_by_either_code():
    german = find_language("de")
    assert german and german is find_language("deu_Latn")
    assert (german.name, german.script, german.resource) == ("German", "Latn", 5)
    assert find_language("zh") is find_language("zho_Hans") and find_language("zh-Hant") is find_language("zho_Hant")
    for unknown in ("", "xx", "deu", "DE", "de-AT", "tlh_Latn"):
        assert find_language(unknown) is None


def test_codes_of_one_language_are_the_same():
    assert same_language("en", "eng_Latn") and same_language("eng_Latn", "en") and same_language("en", "en")
    assert same_language("klingon", "klingon")  # a user's own code
    assert not same_language("en", "de") and not same_language("klingon", "en") and not same_language("xx", "yy")
    assert (
        not same_language("hi", "hin_Latn")
        and not same_language("zh", "zho_Hant")
        and not same_language("ar", "arz_Arab")
    )


def test_the_wheel_ships_the_table(tmp_path: Path):
    """Hatchling takes every file of the package that git does not ignore."""
    root = Path(__file__).parents[2]
    settings = (root / "pyproject.toml").read_text(encoding="utf-8")
    assert '[tool.hatch.build.targets.wheel]\npackages = ["jaxprefix"]' in settings
    assert "*.tsv" not in (root / ".gitignore").read_text(encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    look = "from jaxprefix.tasks.languages import LANGUAGES; print(len(LANGUAGES))"
    found = subprocess.run([sys.executable, "-c", look], cwd=tmp_path / "elsewhere", capture_output=True, text=True)
    assert found.stdout.strip() == str(len(LANGUAGES))
