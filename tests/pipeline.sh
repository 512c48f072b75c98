#!/usr/bin/env bash
# A release as a CI service runs it: audit the model, keep what came out, and release if the exit code is 0.
# usage: PYTHON=... tests/pipeline.sh FOLDER ARGUMENT...
set -uo pipefail
folder=$1
shift
mkdir -p "$folder"
export CI=true GITHUB_ACTIONS=true GITHUB_STEP_SUMMARY="$folder/step_summary.md" GITHUB_OUTPUT="$folder/output"

"$PYTHON" -m pytest audits --audit-profile smoke --audit-report "$folder/report" --junitxml "$folder/junit.xml" \
  --html "$folder/page.html" --self-contained-html -p no:cacheprovider "$@" </dev/null 2>&1 | tee "$folder/log.txt"
code=${PIPESTATUS[0]}

echo "exit_code=$code" >>"$GITHUB_OUTPUT"
if ((code == 0)); then
  touch "$folder/released"
else
  echo "::error title=Model audit::exit code $code, see $folder/report/report.html"
fi
exit "$code"
