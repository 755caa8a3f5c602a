"""`subhost audit modules`: verdicts on what audit/modules.c found, and their tables.

A module is judged by what it claims and by how its children ended, one for each stage:
`main`, `own`, `shared`, `many` (audit/modules.h). As promised, and so no finding, are also a
module that claims no support and is refused, and one that says itself that it cannot."""

import re

from subhost_audit import report

# One list: verdict, what it means for a program, whether it is a finding.
VERDICTS = {
    "ready": ("imports and runs where each interpreter has a GIL of its own", False),
    "claims-ready-but-fails": ("claims support for a GIL of its own, and does not keep it",
                               True),
    "shared-gil-only": ("needs --gil shared, or --isolation process", False),
    "refuses": ("no subinterpreter can import it, or one in a process: it needs --isolation process",
                False),
    "crashes": ("ends the whole process", True),
    "not-importable": ("cannot be imported at all, with or without subinterpreters", True),
}
CLAIMS = {"per-interpreter-gil": "a GIL of its own", "supported": "subinterpreters",
          "not-supported": "no subinterpreters", "unknown": "an unknown value"}
INITS = {"multi-phase": "multi-phase", "single-phase": "single-phase",
         "slots": "slots (PEP 793)", "core": "part of CPython's core"}
WHERE = {"main": "in the main interpreter", "own": "in an interpreter with a GIL of its own",
         "shared": "in an interpreter with the shared GIL", "many": "in {n} interpreters at once"}
AT_ONCE, ROUNDS = 4, 20
LEAK = 256  # KiB a round, beyond what empty interpreters lose; less is the allocator's
SERIES = ("resident", "allocated")  # KiB at the end of each round: of pages, of malloc()
PRELOADED = "every interpreter has it from its start"
LAST = re.compile(r"^(?:Current thread|Thread|Stack) .*most recent call first\):\n"
                  r"((?:  .*\n)+)", re.MULTILINE)
REFUSAL = "does not support loading in subinterpreters"


def _list(value):
    return value if isinstance(value, list) else [value] if value else []


def collect(request):
    records = report.records(request)
    _check_names(records)
    results = {}
    for record in records:
        if "stage" in record:
            results[record.get("of", ""), record["stage"]] = Stage(record)
    bare = results.get(("", "many"))
    empty = {series: bare and bare.growth(series) or 0 for series in SERIES}
    items = [_item(Module(record, results, empty)) for record in records if "module" in record]
    verdicts = {verdict: sum(one["detail"].get("verdict") == verdict for one in items)
                for verdict in VERDICTS}
    distributions = {record["distribution"]: record["distribution_version"]
                     for record in records if "distribution" in record}
    return {"verdicts": verdicts, "empty_growth_kib": empty["resident"],
            "distributions": dict(sorted(distributions.items())), "items": items}


def _check_names(records):
    unknown = [record for record in records if "unknown" in record]
    known = [name for record in records for name in record.get("known", "").split("\n")]
    if unknown:
        raise report.Failed("\n".join(
            f"{record['unknown']}: {record['why']}{report.nearest(record['unknown'], known)}"
            for record in unknown))


# ---- what is known ---------------------------------------------------------------------


class Stage:
    """How one child ended."""

    def __init__(self, record):
        self.record, self.name = record, record["stage"]
        self.ok = record.get("result") == "ok"
        self.signal = None if self.ok else record.get("signal")
        self.hung = not self.ok and "hung" in record
        self.round = int(_list(record.get("round", "0"))[-1])
        self.error = (_list(record.get("error")) or [None])[0]
        self.output = record.get("output", "")
        self.shared = list(dict.fromkeys(_list(record.get("shared"))))
        self.static = list(dict.fromkeys(_list(record.get("static"))))

    @property
    def blame(self):
        """Who was loaded when it ended, or failed."""
        if self.error:
            return (_list(self.record.get("blame")) or [None])[0]
        return (_list(self.record.get("loading")) or [None])[-1]

    def growth(self, series):
        """KiB a round, behind the first ones, which fill caches."""
        sizes = [int(number) for number in _list(self.record.get(series))]
        first = len(sizes) // 4
        if len(sizes) < 8:
            return None
        return round((sizes[-1] - sizes[first]) / (len(sizes) - 1 - first))

    @property
    def where(self):
        text = WHERE[self.name].format(n=AT_ONCE)
        if self.name == "many":
            return f"{text}, round {self.round} of {ROUNDS}"
        return f"{text}, again after the first was destroyed" if self.round > 1 else text

    @property
    def what(self):
        """How it failed."""
        if self.hung:
            return self.record["ending"]
        if self.signal:
            return f"ended by {self.signal}"
        if self.error:
            return self.error
        return f"ended its process: {self.record['ending']}"

    @property
    def kind(self):
        return ("ok" if self.ok else "hang" if self.hung else "crash" if self.signal
                else "error")

    @property
    def stack(self):
        """The last Python stack, innermost first."""
        if self.error:
            return list(reversed(_list(self.record.get("frame"))))
        stacks = [[line.strip() for line in match[1].splitlines()
                   if line.startswith("  File") and "<subhost." not in line]
                  for match in LAST.finditer(self.output + "\n")]
        # Of the threads that were asked, those that were in an import.
        return max(stacks, key=lambda stack: (any("importlib" in line for line in stack),
                                              len(stack)), default=[])

    def document(self):
        made = {"result": self.kind, "milliseconds": int(self.record["milliseconds"])}
        if not self.ok:
            made |= {"where": self.where, "what": self.what}
            made |= {key: value for key, value in
                     (("signal", self.signal), ("blame", self.blame)) if value}
        if self.name == "many":
            made |= {"rounds": self.round, "at_once": AT_ONCE}
        return made


class Module:
    def __init__(self, record, results, empty):
        self.record, self.name, self.kind = record, record["module"], record["kind"]
        self.stages = {stage: results[self.name, stage] for stage in (*WHERE, "claim")
                       if (self.name, stage) in results}
        claim = {}
        for stage in self.stages.values():
            if stage.name in ("main", "claim"):
                claim |= {key: _list(stage.record[key])[-1] for key in
                          ("init", "multiple_interpreters", "gil", "claim_error", "no_entry")
                          if key in stage.record}
        self.claim = claim
        many = self.stages.get("many")
        self.growth = {series: max(many.growth(series) - lost, 0)
                       for series, lost in empty.items()
                       if many and many.ok and many.growth(series) is not None}
        # A CPython that does not free an interpreter's objects (before 3.14) loses with it
        # whatever was imported there: only what malloc() gave is the module's own.
        self.lost = self.growth.get("resident" if empty["resident"] < LEAK else "allocated", 0)

    @property
    def claims_own(self):
        return (self.claim.get("multiple_interpreters") == "per-interpreter-gil"
                or self.claim.get("init") == "core")

    @property
    def claimed(self):
        """The claim, in words."""
        if self.kind not in ("extension", "builtin"):
            return "no extension module itself"
        if self.claim.get("init") not in ("multi-phase", "slots"):
            return INITS.get(self.claim.get("init"), "not known")
        value = self.claim.get("multiple_interpreters")
        init = INITS[self.claim["init"]]
        return f"{init}, {CLAIMS[value] if value else 'no word on subinterpreters'}"

    @property
    def shared(self):
        return [text for stage in self.stages.values() for text in (*stage.shared,
                                                                    *stage.static)]

    def judge(self):
        """(verdict, reason, the stage that decided or None)."""
        main, own, shared, many = (self.stages.get(stage) for stage in WHERE)
        if "misfit" in self.record:
            return "not-importable", self.record["misfit"], None
        if main is None:
            return None, "it was not examined", None
        if not main.ok:
            return ("crashes" if main.signal else "not-importable",
                    f"{main.where}: {main.what}", main)
        failing = next((stage for stage in (own, many, shared) if stage and not stage.ok), None)
        if failing is None:
            if self.shared:
                return ("claims-ready-but-fails", "interpreters have in common: "
                        + "; ".join(self.shared), many)
            return "ready", PRELOADED if "preloaded" in own.record else "", None
        return self._judge_failing(failing, own, shared)

    def _judge_failing(self, failing, own, shared):
        reason = f"{failing.where}: {failing.what}"
        refused = failing is own and failing.error and REFUSAL in " ".join(
            [failing.error, *_list(failing.record.get("cause"))])
        if not refused and (self.claims_own or own.ok):
            return "claims-ready-but-fails", reason, failing
        if own.signal:
            return "crashes", reason, own
        if shared.ok:
            return "shared-gil-only", reason, own
        return ("crashes" if shared.signal else "refuses",
                f"{shared.where}: {shared.what}", shared)


# ---- items -----------------------------------------------------------------------------


def _item(module):
    verdict, reason, stage = module.judge()
    if "no_entry" in module.claim and verdict == "not-importable":
        return report.item(module.name, "skipped", "no extension module",
                           reason=module.claim["no_entry"], detail={"path": module.record["path"]})
    if verdict is None:
        return report.item(module.name, "error", "not examined", reason=reason)
    meaning, finding = VERDICTS[verdict]
    blame = stage.blame if stage else None
    title = verdict
    if blame and blame != module.name:
        title += f" because of {blame}"
    leaks = module.lost >= LEAK
    if leaks:
        title += f", leaks {module.lost / 1024:.1f} MiB a round"
    detail = {"verdict": verdict, "claim": module.claimed, **_details(module, blame, stage)}
    texts = {}
    if finding:
        texts = {"expected": _expected(module, verdict), "seen": reason}
    elif leaks:
        texts = {"expected": f"less than {LEAK} KiB lost a round of {AT_ONCE} interpreters",
                 "seen": f"{module.lost} KiB"}
    return report.item(module.name, "finding" if finding or leaks else "ok", title,
                       meaning=meaning, reason="" if finding else reason, detail=detail, **texts)


def _expected(module, verdict):
    if verdict == "not-importable":
        return "it can be imported in the main interpreter"
    if verdict == "crashes":
        return "an import succeeds or raises"
    return "as it claims: it works in interpreters with a GIL each, at the same time"


def _details(module, blame, stage):
    detail = {"kind": module.kind}
    for key in ("path", "distribution", "distribution_version"):
        if key in module.record:
            detail[key] = module.record[key]
    detail |= module.claim
    if blame:
        detail["blame"] = blame
    if stage and stage.signal:
        detail["signal"] = stage.signal
    if stage and stage.stack:
        detail["stack"] = stage.stack
    if stage and (stage.signal or stage.hung) and stage.output.strip():
        detail["output"] = stage.output.strip()[-2000:]
    if module.shared:
        detail["in_common"] = module.shared
    own = module.stages.get("own")
    without = list(dict.fromkeys(_list(own.record.get("without")))) if own and own.ok else []
    if without:
        detail["did_without"] = without
    for series, growth in module.growth.items():
        detail["growth_kib" if series == "resident" else "malloc_growth_kib"] = growth
    detail["stages"] = {name: stage.document() for name, stage in module.stages.items()
                        if name != "claim"}
    return detail


# ---- tables ----------------------------------------------------------------------------


def _detail(key):
    return lambda one: str(one["detail"].get(key, ""))


def columns(document):
    return [("module", lambda one: one["id"]), ("verdict", _detail("verdict")),
            ("because of", _detail("blame")), ("claims", _detail("claim")),
            ("KiB a round", lambda one: one["detail"].get("growth_kib")),
            ("distribution", lambda one: " ".join(
                filter(None, (one["detail"].get("distribution"),
                              one["detail"].get("distribution_version"))))),
            ("why", lambda one: one.get("reason", one.get("seen", "")))]


def text(document, style):
    yield ""
    for verdict, (meaning, _) in VERDICTS.items():
        if number := document["verdicts"][verdict]:
            yield f"{number:5}  {style.paint('bold', f'{verdict:24}')}{meaning}"
