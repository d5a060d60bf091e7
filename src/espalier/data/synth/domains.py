"""What scenes are made of: fields of support, order, clinic, travel, property and library files, each with many ways
to say it. Data only. In a sentence `{}` stands for the value.
"""

from __future__ import annotations

from dataclasses import dataclass

from espalier.data.synth import values
from espalier.data.synth.values import Maker


@dataclass(frozen=True, slots=True)
class Field:
    """`key` names it in a record, `question` in a sentence ("the day it was closed")."""

    key: str
    question: str
    make: Maker
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Domain:
    """`label_sets` are the things a text of this domain can also be sorted by."""

    name: str
    fields: tuple[Field, ...]
    label_sets: tuple[str, ...]


_SUPPORT = Domain(
    "support",
    (
        Field("ticket", "the ticket number", values.identifier, (
            "Ticket {}.", "Ticket no. {} was opened.", "The case has the number {}.", "Please quote {} in any reply.",
            "Case id: {}", "[{}]", "Our reference is {}.", "We filed your request under {}.", "Re: {}", "Ticket: {}",
            "Your request {} has reached us.", "This mail belongs to ticket {}.", "Subject: [{}] your request",
        )),
        Field("order", "the order number", values.identifier, (
            "The order number is {}.", "Bought with order {}.", "Order: {}", "It was part of order {}.",
            "See purchase order {}.", "PO {}", "The invoice belongs to order {}.",
        )),
        Field("serial", "the serial number", values.identifier, (
            "Serial number {}.", "The label says SN {}.", "S/N: {}", "The unit has serial {}.",
            "On the back I read serial no. {}.",
        )),
        Field("product", "the product", values.product, (
            "It is about the {}.", "Product: {}", "The problem is with my {}.", "I own a {}.",
            "The unit in question is a {}.", "Affected: {}.", "We use the {} every day.", "I bought a {} from you.",
            "Device: {}", "My {} gives me trouble.", "The {} stands in our office.",
            "We have had the {} for some time.", "Our {} needs your help.",
        )),
        Field("opened", "the day it was opened", values.date, (
            "Opened on {}.", "Logged {}.", "It was reported on {}.", "Received: {}", "The request came in on {}.",
            "On {} the customer got in touch.", "Date of contact: {}.", "Created {}", "First message of {}.",
            "On {} we received your message.", "The ticket was opened on {}.", "Opened: {}", "Date: {}",
        )),
        Field("closed", "the day it was closed", values.date, (
            "Closed on {}.", "It was solved on {}.", "Done on {}.", "Closed: {}", "On {} the case was closed.",
            "The customer confirmed on {}.", "Finished {}.", "We closed the ticket on {}.",
            "Since {} everything works again.", "Resolved {}", "Case closed {}.", "It was settled on {}.",
        )),
        Field("bought", "the day it was bought", values.date, (
            "It was bought on {}.", "Date of purchase: {}", "The warranty began on {}.", "Purchased {}.",
            "We have had it since {}.", "Delivered on {}.",
        )),
        Field("customer", "the customer", values.person, (
            "The customer is {}.", "{} wrote to us.", "Contact: {}", "Regards, {}", "My name is {}.", "Sent in by {}.",
            "{} called about it.", "From: {}", "Kind regards\n{}",
        )),
        Field("agent", "the agent", values.person, (
            "{} took care of it.", "Handled by {}.", "The agent on duty was {}.", "Assigned to {}.", "Agent: {}",
            "{}\nSupport team", "It went to {} of second level.",
        )),
        Field("fix", "what was done", values.clause, (
            "We {}.", "Our technician {}.", "Solution: {}.", "The team {}.", "In the end we {}.", "Action: {}",
            "To solve this, our colleague {}.", "Resolution: {}", "They {} and tested it.",
            "Our technician {}; all tests passed.", "What we did: {}.", "The workshop {}.",
            "Note of the technician: {}.", "Second level {}.",
        )),
        Field("next_step", "the next step", values.clause, (
            "As a next step, the team {}.", "Before that, the first agent {}.", "Earlier, a colleague {}.",
            "At first the customer {}.",
        )),
        Field("site", "the site", values.place, (
            "It stands at our site in {}.", "Location: {}", "Our office is in {}.", "Site: {}.", "We are based in {}.",
        )),
    ),
    (
        "topic", "topic", "urgency", "urgency", "mood", "status", "team", "channel", "finding", "finding", "outcome",
        "frequency", "customer",
    ),
)  # fmt: skip
_ORDERS = Domain(
    "order",
    (
        Field("order", "the order number", values.identifier, (
            "Order {} was placed.", "Your order {} is confirmed.", "Order number: {}", "Thank you for order {}.",
            "Order id {}.",
        )),
        Field("invoice", "the invoice number", values.identifier, (
            "Invoice {}.", "Billed with invoice {}.", "Invoice no. {}", "See invoice {}.", "The invoice number is {}.",
        )),
        Field("parcel", "the parcel number", values.identifier, (
            "Parcel {} is on its way.", "Tracking code {}.", "Track it with {}.", "Shipment: {}",
        )),
        Field("item", "the item", values.product, (
            "The item is a {}.", "You ordered the {}.", "Item: {}", "One {} was packed.", "A {} is in the box.",
            "The {} was on the list.",
        )),
        Field("extra", "the extra item", values.product, (
            "A {} was added for free.", "As an extra there is a {}.", "It comes with the {}.",
        )),
        Field("ordered", "the day of the order", values.date, (
            "Ordered on {}.", "Date of order: {}", "It was ordered {}.", "The order was made on {}.",
        )),
        Field("shipped", "the day it was shipped", values.date, (
            "Shipped on {}.", "It left our store on {}.", "Sent out {}.", "Handed to the carrier on {}.",
        )),
        Field("due", "the day the payment is due", values.date, (
            "Please pay before {}.", "Due date: {}", "The payment is due on {}.", "Payable until {}.",
        )),
        Field("buyer", "the buyer", values.person, (
            "The buyer is {}.", "Sold to {}.", "{} placed the order.", "Bill to: {}", "Bought by {}.",
        )),
        Field("city", "the city", values.place, (
            "Ship to {}.", "It goes to {}.", "Deliver to: {}", "The parcel is sent to {}.",
        )),
        Field("total", "the total", values.money, (
            "The total is {} euros.", "They paid {} in all.", "Amount due: {}", "It costs {}.", "Total: {} EUR",
        )),
        Field("count", "the number of pieces", values.quantity, (
            "{} pieces were ordered.", "Quantity: {}", "They need {} of them.",
        )),
        Field("note", "the note", values.phrase, (
            'Note: "{}"', "A card says: {}.", "The gift tag reads {}.", "Remark: {}",
        )),
        Field("action", "what the store did", values.clause, (
            "The store {}.", "Our warehouse {}.", "Done so far: {}.", "The packer {}.",
        )),
    ),
    ("outcome", "mood", "channel", "team", "urgency", "customer", "food"),
)  # fmt: skip
_CLINIC = Domain(
    "clinic",
    (
        Field("patient", "the patient", values.person, (
            "The patient is {}.", "Seen today: {}.", "{} came in for a visit.", "Patient: {}", "We examined {}.",
        )),
        Field("doctor", "the doctor", values.person, (
            "Dr. {} was on duty.", "Treated by {}.", "Doctor: {}", "{} did the check.",
        )),
        Field("chart", "the chart number", values.identifier, (
            "Chart {}.", "The chart number is {}.", "File no. {}", "Recorded in chart {}.",
        )),
        Field("insurance", "the insurance number", values.identifier, (
            "Insured under {}.", "Insurance no. {}", "The insurer's number is {}.",
        )),
        Field("visit", "the day of the visit", values.date, (
            "The visit was on {}.", "Seen on {}.", "Date of visit: {}", "On {} the patient came in.",
        )),
        Field("born", "the day of birth", values.date, ("Born on {}.", "Date of birth: {}", "Born {}.")),
        Field("follow_up", "the day of the next visit", values.date, (
            "Come back on {}.", "The next visit is on {}.", "Follow-up: {}", "We meet again on {}.",
        )),
        Field("therapy", "the therapy", values.clause, (
            "The nurse {}.", "The doctor {}.", "Therapy: {}.", "In the clinic they {}.",
        )),
        Field("device", "the device", values.product, ("A {} was used.", "Measured with the {}.", "Device: {}")),
        Field("time", "the time", values.clock, ("The appointment is at {}.", "At {} sharp.", "Time: {}")),
    ),
    ("symptom", "symptom", "status", "mood", "frequency", "urgency", "answer"),
)  # fmt: skip
_TRAVEL = Domain(
    "trip",
    (
        Field("guest", "the guest", values.person, (
            "The guest is {}.", "{} checked in.", "Booked for {}.", "Traveller: {}", "Name: {}",
        )),
        Field("booking", "the booking code", values.identifier, (
            "Booking {}.", "The booking code is {}.", "Reservation: {}", "Confirmed under {}.",
        )),
        Field("ticket", "the ticket number", values.identifier, (
            "Ticket {} was issued.", "Ticket number {}.", "E-ticket: {}",
        )),
        Field("leave", "the day of departure", values.date, (
            "They leave on {}.", "Departure: {}", "The trip begins on {}.", "Check-in on {}.", "From {}.",
        )),
        Field("back", "the day of return", values.date, (
            "They return on {}.", "Return: {}", "The trip ends on {}.", "Check-out on {}.", "Until {}.",
        )),
        Field("booked", "the day of the booking", values.date, (
            "Booked on {}.", "The booking was made {}.", "Date of booking: {}",
        )),
        Field("origin", "the place of departure", values.place, (
            "They start in {}.", "From {} by train.", "Leaving from {}.",
        )),
        Field("target", "the destination", values.place, (
            "They go to {}.", "Destination: {}", "Arriving in {}.", "The hotel is in {}.",
        )),
        Field("price", "the price", values.money, ("The price is {}.", "It costs {} euros.", "Fare: {}", "Paid {}.")),
        Field("request", "the request", values.phrase, ("A wish: {}.", 'They asked for "{}".', "Special request: {}")),
        Field("change", "what was changed", values.clause, ("The agency {}.", "At the desk they {}.", "Change: {}.")),
        Field("leaves_at", "the time of departure", values.clock, (
            "Leaves at {}.", "Boarding at {}.", "Departure time {}.",
        )),
    ),
    ("trip", "trip", "weather", "food", "mood", "status", "answer"),
)  # fmt: skip
_PROPERTY = Domain(
    "property",
    (
        Field("tenant", "the tenant", values.person, (
            "The tenant is {}.", "{} lives there.", "Let to {}.", "Tenant: {}",
        )),
        Field("owner", "the owner", values.person, ("It belongs to {}.", "The owner is {}.", "Owner: {}")),
        Field("unit", "the unit", values.identifier, ("Unit {}.", "Flat {}.", "The flat has number {}.")),
        Field("contract", "the contract number", values.identifier, (
            "Contract {}.", "Lease no. {}", "The contract number is {}.",
        )),
        Field("from", "the day the lease begins", values.date, (
            "The lease begins on {}.", "Moved in on {}.", "Let since {}.", "Start: {}",
        )),
        Field("to", "the day the lease ends", values.date, (
            "The lease ends on {}.", "Moved out on {}.", "Let until {}.", "End: {}",
        )),
        Field("inspected", "the day of the inspection", values.date, (
            "Inspected on {}.", "The surveyor came on {}.", "Last check: {}",
        )),
        Field("street", "the street", values.place, (
            "It stands in {} Street.", "The house is in {} Road.", "Address: {}",
        )),
        Field("rent", "the rent", values.money, ("The rent is {}.", "They pay {} a month.", "Rent: {}")),
        Field("repair", "the repair", values.clause, (
            "The plumber {}.", "The caretaker {}.", "Work done: {}.", "A firm {}.",
        )),
        Field("heater", "the heater", values.product, ("The heater is a {}.", "A {} heats the flat.", "Installed: {}")),
    ),
    ("complaint", "complaint", "status", "urgency", "mood", "outcome", "size"),
)  # fmt: skip
_LIBRARY = Domain(
    "loan",
    (
        Field("reader", "the reader", values.person, (
            "The reader is {}.", "Lent to {}.", "{} took it home.", "Reader: {}",
        )),
        Field("card", "the card number", values.identifier, (
            "Library card {}.", "Card no. {}", "The card has number {}.",
        )),
        Field("shelf", "the shelf mark", values.identifier, (
            "It stands at {}.", "Shelf mark {}.", "Find it under {}.",
        )),
        Field("title", "the title", values.phrase, (
            "The book is called {}.", 'Title: "{}"', 'They took "{}".', "It is the novel {}.",
        )),
        Field("author", "the author", values.person, ("It was written by {}.", "Author: {}", "A work of {}.")),
        Field("lent", "the day it was lent", values.date, ("Lent on {}.", "Taken out {}.", "Date of loan: {}")),
        Field("due", "the day it is due", values.date, ("Due back on {}.", "To be returned by {}.", "Due: {}")),
        Field("fee", "the fee", values.money, ("The fee is {}.", "They owe {}.", "Fee: {}")),
        Field("binder", "what the binder did", values.clause, ("The binder {}.", "Our staff {}.", "Repair note: {}.")),
        Field("colour", "the colour of the cover", values.colour, (
            "The cover is {}.", "It is the {} one.", "Cover: {}",
        )),
    ),
    ("mood", "status", "frequency", "answer", "weather", "size"),
)  # fmt: skip
DOMAINS = (_SUPPORT, _SUPPORT, _SUPPORT, _ORDERS, _CLINIC, _TRAVEL, _PROPERTY, _LIBRARY)
