"""How Larkspur's customers and staff write: symptoms and findings by cause, urgency by grade, remedies. Data only.

Every phrase belongs to one cause or one grade and no other, so a ticket always decides its codes. How urgent it is
is said with a telling word: emergency, urgent, workaround, no hurry.
"""

from __future__ import annotations

SYMPTOMS: dict[str, tuple[str, ...]] = {
    "E40": (
        "it does not switch on any more", "the display stays dark when I press the power button",
        "it shuts down without warning after a few minutes", "the battery is empty after an hour",
        "there is no light on the front panel", "it only runs as long as the charger is plugged in",
        "it went dead in the middle of a reading",
    ),
    "N12": (
        "it drops off our wireless network all the time", "it cannot reach the server",
        "the readings do not arrive in the cloud", "the link to the base station is gone",
        "it shows as offline although it stands beside the router", "the upload breaks off half way",
        "it does not find the network after the move",
    ),
    "F77": (
        "the menu freezes since the last update", "the app crashes when I open a report",
        "it restarts by itself when I save a file", "an error window pops up at every start",
        "the export writes an empty file", "the update stops at the same point every time",
        "the new version has lost all of my settings",
    ),
    "B31": (
        "we were charged twice for it this month", "the invoice shows the wrong amount",
        "the refund you promised has not come", "the discount is missing on the bill",
        "we got a reminder for a bill that is paid", "the service fee was taken although we had cancelled",
        "the tax on the invoice is wrong",
    ),
    "A05": (
        "I cannot log in to the portal", "my password is not accepted", "the account is locked",
        "the code for signing in never arrives", "the reset link has expired",
        "our new colleague has no rights in the portal", "the login page sends me back to the start",
    ),
    "D64": (
        "the parcel has not arrived", "the box came with a hole in it", "the stand is missing in the package",
        "you sent us another model", "the courier left it with a stranger", "tracking has not moved for days",
        "only half of the delivery came",
    ),
    "M28": (
        "the hinge of the cover is broken", "it makes a grinding noise", "one of the buttons is stuck",
        "there is a crack in the housing", "the cable socket has come loose", "the wheel does not turn any more",
        "water gets in through the seal",
    ),
    "C19": (
        "the readings are too high by a tenth", "the values drift during the day", "the zero point has moved",
        "two units side by side do not agree", "it reads far too low in the reference sample",
        "the results jump up and down", "the yearly check failed on two of five points",
    ),
}  # fmt: skip

FINDINGS: dict[str, tuple[str, ...]] = {
    "E40": (
        "A dead power supply was the reason.", "The battery had failed.", "The fuse on the supply board had blown.",
        "The charger gave no current.",
    ),
    "N12": (
        "The network settings were wrong.", "The signal in the room was too weak.",
        "A wrong address had been assigned.", "The firewall had blocked the unit.",
    ),
    "F77": (
        "We found a bug in the firmware.", "The last update was faulty.", "A defect in the program was confirmed.",
        "The unit ran an old version.",
    ),
    "B31": (
        "Accounting had booked it twice.", "The invoice was made with an old price.",
        "The payment had been filed under another customer.", "The contract was stored with a wrong rate.",
    ),
    "A05": (
        "The account had been blocked after too many tries.", "The password had expired.",
        "The second factor was bound to an old phone.", "The user had not been activated.",
    ),
    "D64": (
        "The carrier had lost the parcel.", "The warehouse had packed the wrong box.", "It was damaged in transit.",
        "The address on the label was wrong.",
    ),
    "M28": (
        "A worn bearing was found.", "The housing had a fault in the material.", "A screw had come off inside.",
        "The gasket had become brittle.",
    ),
    "C19": (
        "The sensor was out of calibration.", "The reference value had been stored wrong.",
        "The probe had aged and lost its slope.", "The scale factor had been changed.",
    ),
}  # fmt: skip

URGENCY: dict[str, tuple[str, ...]] = {
    "red": (
        "This is an emergency, all of our work has stopped.",
        "An emergency: nobody here can work.",
        "Please treat it as an emergency, we lose money every hour.",
    ),
    "amber": (
        "It is urgent for us, half of the shift is affected.",
        "This is urgent, a deadline of ours is at risk.",
        "It is urgent and blocks a big part of our day.",
    ),
    "blue": (
        "We found a workaround for now.",
        "There is a workaround, but it costs us time.",
        "With a workaround we get by.",
    ),
    "grey": (
        "There is no hurry at all.",
        "No hurry, it is only a small thing.",
        "It is a minor matter and there is no hurry.",
    ),
}  # fmt: skip

REMEDIES: dict[str, tuple[str, ...]] = {
    "E40": ("replaced the power supply", "sent a new battery by courier", "changed the fuse on the supply board"),
    "N12": ("reset the network settings", "moved the access point closer", "opened the port in the firewall"),
    "F77": ("installed the latest firmware", "rolled back the last update", "shipped a hot fix to the site"),
    "B31": ("refunded the amount in full", "issued a corrected invoice", "credited the fee to the account"),
    "A05": ("unlocked the account", "sent a fresh password link", "registered the new phone"),
    "D64": ("sent a replacement by express", "shipped the missing part", "arranged a return with the carrier"),
    "M28": ("swapped the broken part", "repaired the housing in the workshop", "exchanged the whole unit"),
    "C19": ("calibrated the sensor on site", "stored the new reference values", "fitted a new probe and tested it"),
}  # fmt: skip

# What was tried before, by somebody else, and is not the remedy.
FIRST_TRIES = (
    "restarted the unit", "asked for a photo of the label", "checked the warranty", "sent the usual list of questions",
    "read the log file", "called back twice", "looked at the unit by video", "compared it with a second unit",
    "passed the case to second level", "ordered a spare part in case",
)  # fmt: skip

PRODUCT_MENTIONS = (
    "It is about our {product}.", "The problem is with a {product}.", "We have a {product} in use.",
    "I am writing about the {product}.", "The unit in question is a {product}.", "We bought a {product} from you.",
    "Our {product} gives us trouble.", "This concerns the {product}.",
)  # fmt: skip
SYMPTOM_MENTIONS = (
    "Since {weekday}, {symptom}.", "In short: {symptom}.", "The trouble is that {symptom}.",
    "What happens: {symptom}.", "I have to report that {symptom}.", "We found that {symptom}.", "Now {symptom}.",
    "As my colleague noticed, {symptom}.",
)  # fmt: skip
OPENINGS = (
    "Ticket {ref} was opened on {opened}.", "Case {ref}, logged on {opened}.", "[{ref}] received on {opened}.",
    "Reference {ref}, date of contact {opened}.", "On {opened} we received request {ref}.",
    "Your request {ref} reached us on {opened}.", "New ticket {ref}, opened {opened}.",
)  # fmt: skip
CLOSINGS = (
    "Our technician {remedy}; the case was closed on {closed}.", "We {remedy} and closed the case on {closed}.",
    "Solution: the team {remedy}. Closed on {closed}.", "In the end we {remedy}. The customer confirmed on {closed}.",
    "Second level {remedy}; done on {closed}.", "On {closed} our field service {remedy} and the case was closed.",
    "Third level {remedy}. Closed {closed}.", "Closed {closed}: our colleague {remedy}.",
)  # fmt: skip
SIDE_FACTS = (
    "The order was {order}.", "The label reads SN {serial}.", "The serial number is {serial}.",
    "Order {order}, serial number {serial}.", "Our own reference is {order}.", "We have had it since {bought}.",
    "The last service was on {service}.",
)  # fmt: skip
CUSTOMER_TALK = (
    "We have been with you for many years.", "My boss asked me to write.", "The manual did not help.",
    "We tried the steps on your page.", "It stands in hall {n}.", "I attach two pictures.",
    "Nothing else was changed here.", "You can call me in the morning.", "It had been running well before.",
    "Please tell me what you need from us.", "I hope that you can help.", "We use {n} of them in all.",
    "It is the first time that we write to you.", "Your colleague at the fair was very kind.",
    "Our site is open until {hour}.",
)  # fmt: skip
STAFF_TALK = (
    "The customer was friendly.", "We asked for more details.", "A photo was sent the next day.",
    "Warranty was checked and is valid.", "The first answer did not help.", "The usual list was gone through.",
    "The line was bad, so we wrote.", "Notes were added to the file.", "The customer asked for a call back.",
    "A second agent joined the case.", "Some tests were made with a unit from stock.",
    "The customer was told what to expect.",
)  # fmt: skip
GREETINGS = ("Hello,", "Good morning,", "Dear team,", "Hi,", "Dear Larkspur support,", "Good afternoon,")
