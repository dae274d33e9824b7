"""Strings that break things: as keys, partitions, column names, text in a terminal, SQL, paths.

`HOSTILE` is for everybody: whatever takes text from outside must take every one of these, or refuse it with an
error of its own, and never do anything else because of it.
"""

import unicodedata

TRAVERSAL = [
    ".", "..", "...", "....", "./", "../", "..\\", "../..", "../../..", "../../../../../../etc/passwd", "/", "//",
    "///", "/etc/passwd", "/etc/shadow", "//etc/passwd", "./x", "x/.", "x/..", "x/../y", "a/./b", "a/../b", "a//b",
    "a/b", "a/b/", "/a", "a/", "..a", "a..", ".a", "a.", "..%2f", "%2e%2e", "%2E%2E%2F", "%252e%252e%252f",
    "..%c0%af", "..%5c", "%2f", "%2F", "%5C", "%00", "%", "%%", "%25", "%2", "%GG", "~", "~root", "~/x", "$HOME",
    "file:///etc/passwd", "file://x", "\\\\server\\share", "\\\\?\\C:\\x", "C:", "C:\\", "C:/x", "c:x", "x:y",
    "x::$DATA", ".staging", ".staging/x", ".git", ".git/config", ".env", ".ssh", "pickle.key", "catalog.duckdb",
    "data", "-", "--", "-rf", "--help", "-x", "*", "?", "[a]", "{a,b}", "!x", "a*b", "a?b", "[!a]", "**/*",
    "partition=x", "x=y", "=", "a=b/c=d", "run_id=1", "__index_level_0__", "..~", "a~b", "~~", "x~0123456789abcdef",
]  # fmt: skip

WINDOWS = [
    *(f"{name}{suffix}" for name in ("CON", "PRN", "AUX", "NUL", "COM1", "LPT9") for suffix in ("", ".txt", ".", " ")),
    "con", "Con", "nul", "nul.parquet", "aux.tar.gz", "CONIN$", "CONOUT$", "COM¹", "LPT²", "COM0", "com10", "CON/x",
    "x/CON", "CLOCK$", "desktop.ini", "Thumbs.db", "a<b", "a>b", 'a"b', "a|b", "a:b", "a*b?c", "trailing ",
    "trailing.", "trailing. .", " leading", "a ", "a  b", "a\u00a0b", "\u3000", "ＣＯＮ",
]  # fmt: skip

CASES = [
    "sales", "Sales", "SALES", "sALES", "straße", "STRASSE", "strasse", "ﬁle", "file", "FILE", "İstanbul", "istanbul",
    "ıstanbul", "Ωmega", "ωmega", "ω", "Ω", "K", "\u212a", "å", "Å", "Σίσυφος", "ΣΊΣΥΦΟΣ", "σίσυφοσ", "ǅ", "ǆ", "Ǆ",
]  # fmt: skip

UNICODE = [
    "é", "e\u0301", "\u00e9", "ñ", "日本語", "データ", "자산", "资产", "資產", "данные", "بيانات", "נתונים",
    "ข้อมูล", "डेटा", "δεδομένα", "tiếng_việt", "Zażółć", "gęślą", "🙂", "👩‍👩‍👧‍👦", "🇩🇪", "👍🏽", "a🙂b", "𝔘𝔫𝔦", "𐍈",
    "½", "²", "Ⅷ", "①", "٣", "४", "٪", "\u00ad", "a\u00adb", "\u200b", "a\u200bb", "\u200c", "\u200d", "\u2060",
    "\ufeff", "\ufeffbom", "\u034f", "a\u0300\u0301\u0302", "Z̸̢̛a̷͝l̵g̶o̵", "\u0300", "ﷺ", "\ufffd", "\uffff",
    "\U0010ffff", "\ue000", "\u2028", "\u2029", "a\u2028b", "\u0085", "\u00a0", "\u1680", "\u2003", "\u3164",
    "\u115f", "\ud800", "\udfff", "a\ud83d", "\udcff", "ｆｕｌｌｗｉｄｔｈ", "ﬀ", "ŉ", "ß", "ẞ", "И\u0306", "Й",
    "가", "\u1100\u1161",
]  # fmt: skip

BIDI = [
    "\u202e", "\u202egnp.exe", "abc\u202edef", "\u202a", "\u202b", "\u202c", "\u202d", "\u2066", "\u2067", "\u2068",
    "\u2069", "\u200e", "\u200f", "\u061c", "x\u2067y\u2069z", "file\u202etxt.parquet",
]  # fmt: skip

CONTROL = [
    "\0", "a\0b", "\0.parquet", "x\0/../../etc/passwd", "\x01", "\x07", "\x08", "\t", "a\tb", "\n", "a\nb", "\r",
    "a\rb", "\r\n", "\x0b", "\x0c", "\x1b", "\x1b[2J", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07",
    "\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "\x1b]52;c;aGk=\x07", "\x1bP$q\x1b\\", "\x1b[6n", "\x1b[?1049h",
    "\x1bc", "\x9b31m", "\x9d0;x\x9c", "\x7f", "\x80", "\x85", "\x9f", "\x1a", "\x04", "\x03", "line1\nline2",
    "\n[ERROR] forged", "a\x1b", "\x00\x00\x00\x00", "\x1f", "\x0e", "\x0f",
]  # fmt: skip

MARKUP = [
    "[/nope]", "[bold]x[/bold]", "[red]", "[link=http://x]y[/link]", "[@click=app.quit]x[/]", "[[x]]", "\\[x]",
    "[/]", "[", "]", "[]", "<b>x</b>", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "&lt;", "&amp;",
    "&#x41;", "<!--", "-->", "]]>", "<![CDATA[x]]>", "<?xml version='1.0'?>", "# heading", "**bold**", "`code`",
    "[x](http://y)", "![x](y)", "{{7*7}}", "{% x %}", "${x}", "#{x}", "{x}", "{0}", "{0.__class__}", "%s", "%d", "%n",
    "%(x)s", "{", "}", "{}", "%x%x%x%n", "$x", "$(x)", "@x", "@{x}", "<%= x %>", "{!r}", "{x!r:>{y}}",
]  # fmt: skip

SQL = [
    "'", "''", '"', '""', "`", "\\", "\\\\", "\\'", '\\"', ";", "--", "-- x", "/*", "*/", "/* x */", "#", "' OR 1=1 --",
    "'; DROP TABLE asset; --", '"; DROP TABLE asset; --', "1; ATTACH '/etc/passwd'", "') OR ('1'='1", "x' UNION SELECT",
    "SELECT", "select * from x", "NULL", "null", "None", "nan", "NaN", "inf", "-inf", "Infinity", "true", "false",
    "TRUE", "0", "-1", "00", "1e309", "0x41", "1_000", "١٢٣", "x'41'", "E'\\x41'", "$1", "?", ":x", "@p1", "%(x)s",
    "order", "group", "table", "user", "main", "information_schema", "pg_catalog", "a.b", "a.b.c", '"a"."b"', "a,b",
    "a b", "rowid", "COLUMNS(*)", "read_csv('/etc/passwd')", "a'||'b", "a\\0b", "’", "＇", "ʼ",
]  # fmt: skip

SHELL = [
    "$(id)", "`id`", "|id", "| id", "& id", "&& id", "; id", ";id;", "> x", ">> x", "< x", "a&b", "a|b", "a;b",
    "$IFS", "${IFS}", "!!", "!$", "\\$x", "a\\", "'$(id)'", '"$(id)"', "x\nid", "-o ProxyCommand=id", "=cmd|'/c id'!A1",
    "=1+1", "+1", "@SUM(1)", "-2+3", "{a,b}", "~+", "()", "() { :;}; id", "%PATH%", "%COMSPEC%", "^x", "a^b", "(x)",
]  # fmt: skip

LONG = [
    "a" * 63, "a" * 64, "a" * 199, "a" * 200, "a" * 201, "a" * 254, "a" * 255, "a" * 256, "a" * 511, "a" * 512,
    "a" * 513, "a" * 4096, "a" * 65536, "." * 200, "." * 255, "/" * 100, "a/" * 200, "%" * 66, "%" * 67, "%" * 170,
    "é" * 100, "é" * 101, "é" * 256, "é" * 257, "日" * 66, "日" * 67, "日" * 170, "🙂" * 16, "🙂" * 17, "🙂" * 128,
    " " * 100, "~" * 100, "=" * 200, "a" * 200 + "b", "a" * 200 + "c", "%41" * 60, "x." * 100, "\\" * 100, "'" * 100,
    "a" * 120 + "~" + "0" * 32, "a" * 199 + ".", "a" * 200 + ".", "." + "a" * 200, "CON" * 70,
]  # fmt: skip

PICKLES_AND_JSON = [
    "cos\nsystem\n(S'id'\ntR.", "\x80\x05.", '{"a":1}', "[1,2]", "null", '"x"', "\\u0000", "\\ud800", '{"$ref":"x"}',
    "__proto__", "constructor", "__class__", "__init__", "self", "cls", "lambda: 0", "__import__('os')", "!!python/x",
    "&a [*a]", "*a", "- x", "key: value", "<<: *x", "yes", "no", "on", "off", "2024-01-01", "2024-02-30", "24:61:61",
    "2024-01-01T00:00:00Z", "2024-01-01/2024-02-01", "a|b", "us|2024-01-01", "|", "||", "\\|", "a[b]", "a*", "+x",
    "*x", "x+", "not a", "a and b", "key:x", "tag:a=b", "group:", "", " ", "  ", "\u00a0 ", "default", "self.x",
]  # fmt: skip

#: Every string once, in a stable order.
HOSTILE: list[str] = list(
    dict.fromkeys(
        TRAVERSAL
        + WINDOWS
        + CASES
        + UNICODE
        + BIDI
        + CONTROL
        + MARKUP
        + SQL
        + SHELL
        + LONG
        + PICKLES_AND_JSON
        + [unicodedata.normalize("NFD", text) for text in [*CASES, "é", "Å", "가", "が"]]
    )
)
