"""JSON against the published schema of reports, by the module jsonschema."""

import functools
import shutil

from programs import run
from tap import PYTHON, SOURCE, equal, lacking

SCHEMA = SOURCE / "docs" / "report.schema.json"
VALIDATE = """
import json, sys, jsonschema
schema = json.load(open(sys.argv[1]))
validator = jsonschema.validators.validator_for(schema)
validator.check_schema(schema)
for error in validator(schema).iter_errors(json.load(sys.stdin)):
    print(error.json_path, error.message)
"""


@functools.cache
def python_with_jsonschema():
    """It need not be the one under test."""
    for python in (PYTHON, "python3", "/usr/bin/python3"):
        if shutil.which(python) and run([python, "-c", "import jsonschema"]).status == 0:
            return python
    return None


def can_validate(name):
    if python_with_jsonschema():
        return True
    lacking(name, "jsonschema", "python3-jsonschema")
    return False


def complaints(text):
    return run([python_with_jsonschema(), "-c", VALIDATE, SCHEMA], input=text)


def is_valid(text, name):
    if can_validate(name):
        checked = complaints(text)
        equal((checked.status, checked.out), (0, ""), name, result=checked)
