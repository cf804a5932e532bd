"""What the regular expressions of tokenizer.json files match, by the `tokenizers` library: a JSON object a line,

    {"pattern": ..., "matches": [[pieces of the first text], ...]}

in which a Split that isolates its matches cuts each text of the first line into pieces. "matches" is null where the library refuses the
pattern.
"""

import json

from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

PATTERNS = [
    r"\d{1,3}+", r"\d{2}+", r"\d{2}?", r"\d{1,3}?", r"\d{2,}?", r"\s++$", r"\s+$",
    r"^a", r"a$", r"^", r"$", r"\Aa", r"a\z", r"a\Z", r".", r".+", r"(?m).+", r"(?s).+", r"(?x) a b", r"(?i)ß",
    r"(?i)ss", r"(?i)σ", r"(?i)k", r"(?i:k)", r"(?-i:k)", r"a{,2}", r"a{1,}", r"a{2}", r"a++", r"a*+b", r"(?>a+)b",
    r"\R", r"\X", r"a\Kb", r"\h+", r"\H+", r"\d+", r"\D+", r"\S+", r"\W+", r"[\W]+", r"[\S]+", r"[^\W]+", r"[^\S]+",
    r"[\W_]+", r"\b", r"\B", r"\bab\b", r"\p{Han}+", r"\p{Alpha}+", r"\p{^L}+", r"\P{L}+", r"\p{Letter}", r"\p{Lu}",
    r"\p{IsHan}", r"\x41", r"\x{41}", r"\u0041", r"\u{41}", r"\101", r"\e", r"\t", r"\v", r"\f", r"\a", r"\0",
    r"[[:alpha:]]+", r"[[:digit:]]+", r"[[:punct:]]+", r"[[:space:]]+", r"[[:upper:]]+", r"[[:lower:]]+",
    r"[[:alnum:]]+", r"[[:word:]]+", r"[[:xdigit:]]+", r"[[:cntrl:]]+", r"[[:graph:]]+", r"[[:print:]]+",
    r"[[:blank:]]+", r"[[:ascii:]]+", r"[[:^alpha:]]+", r"[^[:alpha:]]+", r"(?<=a)b", r"(?<!a)b", r"(?=a)", r"(?!a)",
    r"(a)\1", r"(?<n>a)\k<n>", r"(?P<n>a)", r"(?'n'a)", r"(?#c)a", r"a|b|", r"[a-]", r"[-a]", r"[]a]", r"[^]a]",
    r"[a\]]", r"\#", r"\-", r"\ ", r"\/", r"\_", r"[\n\r]+", r"[\d-x]", r"a??", r"a*?b", r"(?~ab)", r"\G", r"\y",
    r"\Y", r"\O", r"\N", r"\N+", r"\cA", r"\C-a", r"\M-a", r"é", r"[é-ü]", r"{", r"}", r"a{", r"a{1", r"a{x}", r"]",
    r"x{0}", r"(?<name>x)", r"\p{Script=Han}", r"\p{Greek}", r"\p{In_Greek_and_Coptic}", r"\p{Nd}", r"\p{N}",
    r"\p{Emoji}", r"\p{L&}", r"\p{LC}", r"\p{Any}", r"\p{Assigned}", r"\p{Cs}", r"\p{M}", r"\pL", r"\Qa.b\E",
    r"(?|(a)|(b))", r"(?(1)a|b)", r"(a)(?(1)b|c)", r"\w(?=\w)", r"(*FAIL)", r"(*SKIP)", r"\g<1>(a)", r"(?1)(a)",
    r"(?R)", r"[[a-c][x-z]]", r"[a-z&&[aeiou]]", r"[\p{L}--a]", r"[a&&b]", r"[a&b]", r"(?i)[a-c]", r"(?i:'s|'t)",
    r"\s+(?!\S)", r"(?u)a", r"(?a)\w+", r"(?W)\w+", r"(?W:\w+)", r"(?D)\d", r"(?S)\s", r"(?P)\w", r"(?y{g})\X",
    r"(?im)a.", r"(?mi-x)a", r"(?U)a+",
]
TEXTS = [
    'ab aab aaab b\nab\n', 'a\xdf SS ss \u03a3\u03c3\u03c2K\u212ak\xdf\u1e9e',
    'A\x1b\xe9\u0301\r\n\u6f22\u5b57 12\xb2\xbd\u2167\u200d_\t-x.,$+\xa0\x0b\x0c\x85\u2028z', 'aeioxyz]-{}#/ &&a.b',
    '', '\n', '\U0001f44d\U0001f3fd\U0001f468\u200d\U0001f469\u200d\U0001f467 \x00\x07\u0345\u24b6 a-b c\u0300d',
]


def pieces(pattern, text):
    return [piece for piece, _ in Split(Regex(pattern), "isolated").pre_tokenize_str(text)]


def main():
    print(json.dumps({"texts": TEXTS}))
    for pattern in PATTERNS:
        try:
            matches = [pieces(pattern, text) for text in TEXTS]
        except BaseException:  # the library panics at some
            matches = None
        print(json.dumps({"pattern": pattern, "matches": matches}))


main()
