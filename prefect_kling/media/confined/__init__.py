"""Opens the files nobody has vouched for, in a process of its own: `python -I -m prefect_kling.media.confined`.

Its modules import the standard library, av, Pillow and light modules of this package: Prefect alone would cost seconds.
It reads one JSON job from standard input and writes one JSON line per clip, as soon as that clip is done:

    {"job": "probe", "clips": [{"path": "/a.mp4"}, …], "limits": {…}} → {"clip": 0, "found": {…}}
                                                                     or {"clip": 0, "refused": "why, in words"}
                                                                     or {"clip": 0, "unwritable": errno}

What else a job needs to know lies beside `limits` where it is the same for all clips, beside `path` where it is not.

    probe       what the clip is: facts.py
    last-frame  writes the last frame into `out`: {"suffix", "width", "height", "number", "luma"}
    frame       writes the one shown at `position`: {"suffix", "width", "height"}
    lumas       how bright the frames at its end are: {"rate", "lumas"}
    fit         writes an image that the gateway takes into `out`: {"suffix", …}, the suffix "" where it does already
    stills      makes a film's poster, sheet and preview in the folder `out`: {}
    thumbnail   writes the first frame, small, as the file `name` in the folder `out`: {}
    words       draws `images` of one `size` in the font that the clip is: {"in_the_way": {} or why it cannot}
    sound       writes a clip's sound, from its first frame on, as raw samples into `out`: {}
    track       writes the sound of any file with sound in it likewise: {}

A clip that exhausts a limit inside a decoder ends the process; the line that is missing says which clip it was.
"""
