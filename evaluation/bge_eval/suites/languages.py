"""Language codes: the ISO 639-1 codes that people write, and the 639-3 codes that mteb uses."""

from __future__ import annotations

from collections.abc import Sequence

_SHORT = (
    "af:afr am:amh ar:ara,arb as:asm az:aze,azj be:bel bg:bul bn:ben bo:bod bs:bos ca:cat cs:ces"
    " cy:cym da:dan de:deu el:ell en:eng eo:epo es:spa et:est,ekk eu:eus fa:fas,pes fi:fin fo:fao"
    " fr:fra ga:gle gd:gla gl:glg gu:guj ha:hau he:heb hi:hin hr:hrv hu:hun hy:hye id:ind ig:ibo"
    " is:isl it:ita ja:jpn jv:jav ka:kat kk:kaz km:khm kn:kan ko:kor ku:kur,kmr ky:kir la:lat"
    " lb:ltz lo:lao lt:lit lv:lav,lvs mg:mlg,plt mi:mri mk:mkd ml:mal mn:mon,khk mr:mar"
    " ms:msa,zsm mt:mlt my:mya nb:nob ne:nep,npi nl:nld nn:nno no:nor,nob,nno ny:nya or:ori,ory"
    " pa:pan pl:pol ps:pus,pbt pt:por ro:ron ru:rus sa:san sd:snd si:sin sk:slk sl:slv sm:smo"
    " sn:sna so:som sq:sqi,als sr:srp st:sot su:sun sv:swe sw:swa,swh ta:tam te:tel tg:tgk"
    " th:tha tk:tuk tl:tgl tr:tur tt:tat ug:uig uk:ukr ur:urd uz:uzb,uzn vi:vie wo:wol xh:xho"
    " yi:yid,ydd yo:yor zh:zho,cmn zu:zul zho:zho,cmn cmn:zho,cmn"
)
"""ISO 639-1 code:the ISO 639-3 codes that mteb uses for it; Chinese has two."""
_LANGUAGES = {
    short: tuple(codes.split(",")) for short, _, codes in (e.partition(":") for e in _SHORT.split())
}


def language_codes(languages: Sequence[str]) -> set[str]:
    """Return every spelling that mteb may use for some languages.

    Args:
        languages: codes such as ``en``, ``eng``, ``zh-Hans``.

    Returns:
        The codes themselves, and the 639-3 codes of the two-letter ones with their scripts, e.g.
        ``{"zh-Hans", "zho-Hans", "cmn-Hans"}``.
    """
    codes: set[str] = set()
    for language in languages:
        code, hyphen, script = language.partition("-")
        codes |= {language, *(f"{one}{hyphen}{script}" for one in _LANGUAGES.get(code, ()))}
    return codes
