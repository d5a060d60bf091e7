"""Label sets: what a text can be sorted by, and how people say each class. Data only.

`{thing}`, `{part}`, `{matter}`, `{day}` and `{n}` are filled in by `labels.say`, so that no two texts need be alike. A
class is named by the words that mean it; what a request calls it (the words, or a code) is up to `labels`.
"""

from __future__ import annotations

LabelSets = dict[str, dict[str, tuple[str, ...]]]

LABEL_SETS: LabelSets = {
    "topic": {
        "power": (
            "the {thing} does not turn on", "the {thing} is dead", "there is no light on the {thing}",
            "it switches itself off after {n} minutes", "the battery is empty again", "the {thing} gets no current",
            "the fuse blew twice", "the charger stays cold", "the power cable of the {thing} is torn",
            "the {thing} went dark and will not start", "it only runs while it is plugged in",
            "the voltage drops under load",
        ),
        "network": (
            "the {thing} loses its connection", "the wireless link drops every hour", "it cannot reach the server",
            "pages take {n} seconds to load", "the {thing} is offline again", "no signal in the {part} room",
            "the address is not assigned", "the line is very slow", "it does not find the network",
            "the {thing} times out when it syncs", "the gateway does not answer", "uploads stop half way",
        ),
        "software": (
            "the app crashes at start", "it freezes after the update", "an error window keeps popping up",
            "the menu of the {thing} is empty since the last version", "the {thing} hangs while saving",
            "the program shows a blank page", "the report comes out with wrong sums",
            "a bug swallows every second entry", "the export button does nothing", "version {n} broke the search",
            "the firmware update never finishes", "the {thing} shows error {n}",
        ),
        "billing": (
            "I was charged twice", "the invoice shows the wrong amount", "the refund never came",
            "the discount is missing on the bill", "you booked {n} euros too much",
            "the payment was taken on the wrong {day}", "the price on the invoice is not what we agreed",
            "the tax on the bill is wrong", "my card was debited again", "the credit note is still missing",
            "we paid and still got a reminder", "the subscription fee went up without notice",
        ),
        "access": (
            "I cannot log in", "my password is not accepted", "the account is locked",
            "the code for signing in never arrives", "it says that my user does not exist",
            "the reset link has expired", "I lost the phone with my second factor", "the new colleague has no rights",
            "the login page sends me back", "my badge does not open the {thing}", "access to the {matter} is denied",
            "the account was blocked after {n} tries",
        ),
        "delivery": (
            "the parcel never arrived", "the box came with a dent", "a {part} is missing in the package",
            "you sent the wrong {thing}", "the courier left it at the wrong door",
            "tracking has not moved for {n} days", "the delivery came on {day} and nobody was told",
            "the carton was torn open", "only {n} of the boxes came", "the shipment is held at customs",
            "the package was dropped", "the carrier lost it",
        ),
        "mechanics": (
            "the {thing} makes a grinding noise", "the hinge is broken", "the {part} is stuck",
            "there is a crack in the case", "the {part} came off", "the lid does not close",
            "something rattles inside the {thing}", "the wheel turns with a squeak", "the handle snapped",
            "the {part} is bent", "it leaks at the {part}", "the motor hums and does not move",
        ),
        "handling": (
            "I do not know how to set it up", "where do I find the option", "the manual makes no sense to me",
            "I pressed something and now it looks different", "how do I change the {matter}",
            "can you show me how to use the {thing}", "I must have skipped a step",
            "the setting was changed by mistake", "please explain the {part} to me",
            "we do not understand the {matter}", "I picked the wrong mode", "is there a guide for the {thing}",
        ),
        "measuring": (
            "the reading is off by {n} percent", "the {thing} shows too much", "the values drift during the day",
            "two gauges do not agree", "the zero point has moved", "the scale is not exact any more",
            "the results jump up and down", "it needs to be calibrated", "the curve is shifted",
            "the probe reads {n} in plain water",
        ),
    },
    "urgency": {
        "critical": (
            "all of our work has stopped", "this is an emergency", "nobody here can work", "we lose money every hour",
            "it must be fixed today", "the whole site stands still", "please act at once", "we cannot wait any longer",
            "the entire line is down", "{n} people are sent home because of it",
        ),
        "high": (
            "it blocks a big part of my day", "this is quite serious for our team", "we need a solution very soon",
            "please treat this with priority", "half of the team is affected", "the deadline is on {day}",
            "it slows all of us down badly", "we depend on this a lot", "an answer by tomorrow would be good",
        ),
        "normal": (
            "it is annoying but we get by", "I can work around it for now", "next week would be fine",
            "it would be nice to have it solved", "we use another {thing} meanwhile",
            "please have a look in the next days", "it disturbs us a little",
            "we manage with the old one for the moment",
        ),
        "low": (
            "there is no hurry at all", "just a small thing", "whenever you have time", "it is only a minor matter",
            "no rush with this one", "this can wait for some weeks", "it is purely cosmetic", "take your time",
            "I only wanted to let you know",
        ),
    },
    "mood": {
        "happy": (
            "thanks a lot, this is great", "we are very pleased with it", "what a lovely service", "you made my day",
            "the {thing} works like a dream", "five stars from us", "I would buy it again",
            "your colleague was wonderful",
        ),
        "angry": (
            "this is not acceptable", "I am furious about it", "I want my money back",
            "what a shame for a firm like yours", "I will never order here again",
            "this is the worst {thing} I ever had", "I have had enough of this", "I will tell everyone about it",
        ),
        "calm": (
            "I do not mind", "all is fine so far", "that is all right with us", "it is what it is",
            "I just write to let you know", "no bad feelings", "we are neither glad nor sad about it",
        ),
        "worried": (
            "I am afraid that it gets worse", "we are a bit nervous about it", "I hope that nothing is lost",
            "it keeps me awake at night", "we fear for our {matter}", "please tell me that this can be saved",
            "I am not sure it is safe",
        ),
        "confused": (
            "I do not get it", "this makes no sense to me", "I am lost here",
            "two people told me two different things", "I no longer know what to believe",
            "what am I supposed to do now",
        ),
    },
    "status": {
        "open": (
            "nobody has looked at it so far", "it is still waiting", "no one has picked it up",
            "it has been in the queue since {day}", "we have not started yet",
        ),
        "running": (
            "we are working on it", "a colleague is on it right now", "the repair has begun", "it is half done",
            "tests are under way", "{n} of the steps are done",
        ),
        "waiting": (
            "we wait for a spare {part}", "the customer has to answer first", "it is on hold until {day}",
            "we need more details before we go on", "the supplier has not replied",
        ),
        "done": (
            "it was all sorted out", "the work is complete", "everything runs again",
            "the customer is content and we closed it", "it has been settled", "the {thing} works again",
        ),
        "rejected": (
            "we had to turn it down", "the claim was refused", "it is not covered", "the request was declined",
            "we will not do this",
        ),
        "lost": (
            "it could not be found", "it went missing on the way", "nobody knows where the {thing} is",
            "the {matter} has vanished", "we searched and found nothing",
        ),
    },
    "team": {
        "sales": (
            "they want a quote for {n} pieces", "we would like to buy more", "a new customer asks for prices",
            "please send us an offer for the {thing}", "they think about a bigger contract",
        ),
        "legal": (
            "the contract must be reviewed", "they threaten to sue", "our lawyer has a question",
            "a clause in the terms is not clear", "there is a patent involved",
        ),
        "finance": (
            "the books do not balance", "the transfer bounced", "please check the payment of {n} euros",
            "the tax office asks for papers", "the budget needs a signature",
        ),
        "repairs": (
            "the {thing} must be opened and mended", "a technician has to come", "the {part} needs to be soldered",
            "please fix the {part}", "it has to go to the workshop",
        ),
        "personnel": (
            "she asks for days off", "a new colleague starts on {day}", "he wants to change his hours",
            "the job interview is on {day}", "her salary slip is missing",
        ),
        "security": (
            "somebody tried to break in", "a strange mail asked for my password", "the door was forced open",
            "data leaked to the outside", "an unknown device is on our net",
        ),
        "training": (
            "they want a course for {n} people", "the staff has to learn the new {thing}",
            "please teach us how to use it", "a workshop on {day} would help", "we need lessons for beginners",
        ),
    },
    "channel": {
        "mail": (
            "it came in by email", "received in the inbox", "they wrote us a message", "sent to our mail address",
            "per email on {day}",
        ),
        "phone": (
            "the customer called in", "taken by phone", "she rang us on {day}", "he was on the line for {n} minutes",
            "reported in a call",
        ),
        "chat": (
            "it came in via chat", "a chat with our bot led to this", "typed in the chat window",
            "the chat log is attached",
        ),
        "visit": (
            "he came to the desk", "she walked into the shop", "handed in at the counter",
            "they stood at our door on {day}",
        ),
        "letter": ("it came by post", "a letter reached us on {day}", "written on paper", "sent in an envelope"),
        "form": (
            "filled in on the website", "submitted through the online form", "entered in the portal",
            "via the contact form",
        ),
    },
    "complaint": {
        "noise": (
            "the neighbours play loud music", "the fan roars all night", "we hear hammering from {n} in the morning",
            "the dog next door barks for hours",
        ),
        "heating": (
            "the radiator stays cold", "it is freezing in the flat", "the boiler gives no warm water",
            "the heating is out since {day}",
        ),
        "water": (
            "the tap drips", "there is a leak under the sink", "the ceiling is wet", "the toilet overflows",
            "water stands in the cellar",
        ),
        "door": (
            "the lock is jammed", "the key broke off", "the front door does not close", "the window frame is loose",
            "the gate is bent",
        ),
        "rubbish": (
            "the bins were not emptied", "somebody dumped old chairs in the yard", "it smells of waste in the hall",
            "bags pile up by the stairs",
        ),
        "lift": (
            "the lift is stuck on floor {n}", "the elevator does not come", "we had to climb {n} floors",
            "the lift doors open too early",
        ),
        "light": (
            "the lamp in the hall is out", "the stairs are dark", "the bulb flickers",
            "the garden light never goes off",
        ),
    },
    "symptom": {
        "pain": (
            "my back hurts", "the knee aches when I walk", "I have a headache since {day}",
            "a sharp sting in the chest", "the shoulder is sore",
        ),
        "fever": (
            "I feel hot and shiver", "the temperature was over {n}", "I sweat at night", "my forehead is burning",
        ),
        "cough": ("I cough all night", "the throat is dry and scratchy", "I bring up phlegm", "my chest rattles"),
        "skin": (
            "a red rash on the arm", "it itches everywhere", "the spot got bigger", "my hands peel",
            "small blisters on the foot",
        ),
        "stomach": (
            "I feel sick after meals", "I cannot keep food down", "my belly is swollen", "cramps after breakfast",
        ),
        "sleep": ("I lie awake for hours", "I wake up {n} times a night", "I am tired all day", "I cannot fall asleep"),
        "eyes": ("I see double", "my sight is blurred", "the eye is red and waters", "bright light dazzles me"),
    },
    "trip": {
        "delay": (
            "the train was {n} minutes late", "we missed the next flight", "the bus came an hour after its time",
            "we sat on the runway for hours",
        ),
        "cancelled": (
            "the flight was called off", "our tour did not take place", "the ferry did not sail",
            "they struck the train from the plan",
        ),
        "luggage": (
            "my suitcase did not arrive", "the bag came back torn", "the trolley is still in the other city",
            "somebody took my backpack",
        ),
        "room": (
            "the bed was too small", "the room had not been cleaned", "there were insects in the bath",
            "we got a room without a window",
        ),
        "food": (
            "the soup was cold", "the bread was old", "there was nothing for vegetarians", "breakfast was over at {n}",
        ),
        "staff": (
            "the guide was rude", "nobody at the desk helped us", "the driver shouted at me",
            "the crew was friendly and quick",
        ),
        "visa": (
            "the passport had expired", "they asked for a stamp we did not have", "the visa was not granted",
            "the border police sent us back",
        ),
    },
    "finding": {
        "power supply failed": (
            "we found a dead power supply", "the supply board had burnt out", "the adapter gave no voltage",
            "the technician measured no current",
        ),
        "worn part": (
            "a worn bearing was the reason", "the belt had aged", "the {part} was at the end of its life",
            "the seal had become brittle",
        ),
        "wrong setting": (
            "the settings were wrong", "somebody had changed the mode", "the {thing} was set to the wrong unit",
            "a switch stood in the wrong place",
        ),
        "software bug": (
            "we found a bug in the program", "the last update was faulty", "a defect in the code was confirmed",
            "the {thing} ran an old version",
        ),
        "user error": (
            "a step had been skipped", "it was a handling error", "the customer had pressed the wrong key",
            "the {thing} had been used against the manual",
        ),
        "carrier damage": (
            "the package was crushed on the way", "the carrier had dropped it", "it was damaged in transit",
            "the parcel was lost by the carrier",
        ),
        "booking error": (
            "billing had booked it twice", "the invoice was made with an old price",
            "the refund was stuck in accounting", "a wrong tax rate was used",
        ),
        "weak signal": (
            "the signal in the room was weak", "too many walls stood in between", "the access point was overloaded",
            "the cable to the socket was cut",
        ),
        "locked account": (
            "the account had been locked", "the password had expired", "the user had been deleted by mistake",
            "the second factor was bound to an old phone",
        ),
        "no fault": (
            "we could not find any fault", "all tests passed", "the {thing} worked as it should",
            "nothing was wrong with it",
        ),
    },
    "outcome": {
        "replaced": (
            "a new {thing} was sent", "the {part} was swapped", "they got another one", "we exchanged the whole unit",
        ),
        "repaired": (
            "the {part} was soldered", "we mended the {part}", "the {thing} was put right in the workshop",
            "it was fixed on site",
        ),
        "refunded": ("the money went back", "we paid back {n} euros", "the amount was credited", "a refund was issued"),
        "explained": (
            "we walked her through the steps", "a short guide was sent", "he was shown how to do it",
            "the option was pointed out by phone",
        ),
        "updated": (
            "the patch was installed", "the newest version was rolled out", "the firmware was renewed",
            "a hot fix was shipped",
        ),
        "refused": (
            "the claim was turned down", "we could not help", "the warranty had ended", "no goodwill was given",
        ),
    },
    "weather": {
        "rain": (
            "it poured all day", "we got wet to the skin", "umbrellas everywhere", "the drops drummed on the roof",
        ),
        "snow": (
            "everything was white", "the children built a snowman", "the road was ploughed", "flakes fell all night",
        ),
        "sun": ("not a cloud in the sky", "we got sunburnt", "the sky was bright and blue", "we needed sun cream"),
        "wind": (
            "the gusts tore at the tent", "hats flew away", "a storm bent the trees", "the flag cracked in the breeze",
        ),
        "fog": (
            "we could not see ten metres", "the hills were wrapped in mist", "the airport closed for poor sight",
            "headlights shone through grey haze",
        ),
    },
    "food": {
        "fruit": ("a basket of ripe plums", "sweet peaches and grapes", "she peeled an orange", "half a melon"),
        "fish": ("grilled trout", "smoked salmon on toast", "a fresh cod from the harbour", "tuna in oil"),
        "drink": ("a pot of green tea", "cold lemonade", "two cups of coffee", "a glass of milk"),
        "bakery": ("warm rolls from the oven", "a slice of apple pie", "rye bread with seeds", "a tray of biscuits"),
        "meat": ("roast beef", "a plate of ham", "lamb chops with herbs", "fried sausages"),
        "vegetable": ("steamed carrots", "a salad of cucumber", "roasted pumpkin", "peas and beans"),
    },
    "customer": {
        "school": (
            "our pupils use it every day", "it stands in classroom {n}", "the teachers need it for lessons",
            "we are a primary school",
        ),
        "hospital": (
            "the ward needs it around the clock", "our nurses work with it", "it is used in surgery",
            "we are a small clinic",
        ),
        "factory": (
            "it runs on the production line", "our plant makes {n} pieces a day", "the shift leader reported it",
            "it hangs over the assembly belt",
        ),
        "farm": (
            "we use it in the barn", "it measures the soil on our fields", "the cows depend on it",
            "it stands in the greenhouse",
        ),
        "laboratory": (
            "our researchers need exact values", "it stands on the bench beside the samples",
            "we analyse {n} probes a day", "the lab is accredited",
        ),
        "household": (
            "we use it at home", "my family of {n} shares it", "it stands in our kitchen",
            "I bought it for my parents",
        ),
        "shop": (
            "it stands at our till", "our customers in the store see it", "we sell shoes", "the shop opens at {n}",
        ),
    },
    "frequency": {
        "once": ("it happened a single time", "only once so far", "it never came back", "just that one time"),
        "daily": (
            "it happens every day", "each morning it is the same", "day after day", "not a day goes by without it",
        ),
        "weekly": ("every {day} it comes back", "about once a week", "week by week the same"),
        "always": ("it is like this all the time", "it never stops", "whenever I try, it fails", "without any break"),
        "rarely": ("every few months", "now and then, not often", "once in a blue moon", "hardly ever"),
    },
    "size": {
        "small": ("a team of two", "just me and a friend", "a tiny workshop", "it fits in a pocket"),
        "medium": ("some forty people", "a mid-sized firm", "about the size of a suitcase", "neither big nor small"),
        "large": (
            "thousands of staff", "a huge plant with {n} halls", "as big as a house",
            "one of the largest in the country",
        ),
    },
    "answer": {
        "yes": ("of course", "we agree", "that is right", "gladly, go ahead", "I accept the offer", "please do so"),
        "no": ("certainly not", "we decline", "that is not true", "I do not want that", "never", "please do not"),
        "unsure": ("perhaps", "I will think about it", "we have not decided", "it depends", "ask me again on {day}"),
    },
}  # fmt: skip
