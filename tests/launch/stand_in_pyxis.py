"""Stands in for srun with the pyxis plugin: takes --container-* away and starts the command in a real Apptainer image.

Only what pyxis itself would show is seen inside: the mounts it was given, and neither the home, /tmp nor the working
directory. The job's variables come along; those named by --container-env win over the image's own. All other words are
the real srun's, whose path is REAL. An option that pyxis does not have is an error, as srun would make it one.
"""

import os
import sys

REAL = "@srun@"
OPTIONS = {"image", "mounts", "workdir", "env"}
WITH_VALUE = {"--output"}  # the only one that is written as two words


def main(words: list[str]) -> None:
    """Become the real srun."""
    own: list[str] = []
    asked: dict[str, str] = {}
    while words[0].startswith("-"):
        word = words.pop(0)
        name, _, value = word.partition("=")
        if name.startswith("--container-"):
            asked[name.removeprefix("--container-")] = value
        elif word != "--no-container-mount-home":
            own += [word, words.pop(0)] if word in WITH_VALUE else [word]
    if unknown := set(asked) - OPTIONS:
        sys.exit(f"srun: unrecognized option {', '.join(unknown)}")
    if asked:
        for name in asked["env"].split(","):
            if name in os.environ:
                os.environ[f"APPTAINERENV_{name}"] = os.environ[name]
        shown = ["--no-home", "--no-mount", "tmp,cwd", "--scratch", "/tmp", "--bind", asked["mounts"]]
        words = ["apptainer", "-q", "exec", *shown, "--pwd", asked["workdir"], asked["image"], *words]
    os.execv(REAL, ["srun", *own, *words])


if __name__ == "__main__":
    main(sys.argv[1:])
