"""Word lists: everyday wording of support desks, shops, clinics, travel and homes. Data only."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = _words(
    """Anna Brian Carlos Deepa Elena Farid Grace Hiro Ivan Julia Kofi Laura Marco Nadia Omar Petra Quentin Rosa Sven
    Tara Umar Vera Will Xenia Yusuf Zoe Alice Boris Chloe David Erik Fiona Georg Helen Irene James Karin Liam Mona
    Nils Olga Paul Rita Sam Tina Uwe Viktor Wendy Yara Adam Bella Cyril Dora Emil Freya Gino Hana Igor Jana Kira
    Leon Mina Noah Otto Pia Ralf Sara Theo Ulla Vito Wanda Amir Bruno Clara Diego Esther Felix Gloria Hugo Ines
    Jonas Katya Lena Milan Nora Oscar Pablo Ruth Simon Teresa Victor Walter Amina Bela Colin Dario Emma Frank Gita
    Henry Isla Jan Kenji Lucas Maria Nina Oliver Paula Raj Stella Thomas Ursula"""
)
LAST_NAMES = _words(
    """Miller Schmidt Garcia Patel Novak Okafor Tanaka Rossi Kowalski Larsen Dubois Ivanova Haddad Nguyen Costa Fischer
    Moreau Petrov Singh Kim Weber Andersen Romano Silva Jensen Baker Carter Evans Foster Grant Hughes Jackson Keller
    Lopez Mason Nelson Owens Parker Quinn Reed Stone Turner Vance Walsh Young Becker Hoffman Krause Lang Meyer
    Richter Vogel Wagner Zimmer Berg Dahl Holm Lund Nord Strand Adams Brooks Clarke Duncan Ellis Fraser Gibson
    Harper Irwin Jones Kerr Lambert Murray Norris Osborne Palmer Ramsey Sharma Tucker Underwood Vargas Watson Yates
    Zhang Bailey Chandra Diaz Eriksen Ferrari Gupta Horvat Ibrahim Jacobs Kaya Lindgren Mendes Nowak Ortega Popov"""
)
ONSETS = _words("b br c ch d dr f g gr h j k kr l m n p pr qu r s sh st t th tr v w z bl cl fl gl sl sp")
VOWELS = _words("a e i o u a e i o u ai ea ie ou oo ee")
CODAS = ("", "", "", "n", "r", "l", "s", "m", "t", "x", "nd", "rt", "ck", "sh", "v", "rn", "lt", "st", "ng")
NAME_ENDINGS = ("", "", "", "a", "o", "i", "sen", "ski", "ez", "er", "ton", "berg", "y", "ova", "ini", "mann")
PLACE_ENDINGS = ("", "", " City", " Bay", "field", "ville", "ford", "burg", " Harbour", " Hill", "wick", "stead")

BRANDS = _words(
    """Heron Falcon Willow Cedar Summit Harbor Beacon Cobalt Amber Granite Juniper Maple Orion Polaris Quartz Raven
    Sierra Tundra Vector Zephyr Aspen Birch Condor Delta Ember Fjord Glacier Hazel Indigo Jasper Kestrel Lumen
    Meadow Nimbus Onyx Pioneer Ridge Sparrow Topaz Umbra Vista Wren Acorn Bramble Clover Dune Echo Flint Gale Haven
    Iris Lotus Mistral Nova Opal Prairie Quill Robin Sage Thistle Vega Atlas Comet Titan Apex Pulse Swift Solar
    Polar Ocean Forest River Silver Crystal Golden Arctic Coral Copper Ivory Scarlet Violet Crimson Pearl Stellar
    Rapid"""
)
PRODUCT_ADJECTIVES = _words(
    """Digital Wireless Portable Compact Smart Heavy Outdoor Indoor Desktop Industrial Mobile Electric Thermal Optical
    Laser Pocket Bench Wall Home Office Travel Garden Kitchen Dual Flow Level Pressure Moisture Sound Light Colour
    Gas Water Air Soil Steam Signal Power Data Voice Storage Safety Field Lab Rapid Silent Deep"""
)
PRODUCT_NOUNS = _words(
    """Router Printer Scanner Tablet Camera Laptop Monitor Keyboard Headset Server Switch Modem Speaker Projector Drive
    Charger Sensor Phone Drone Watch Heater Pump Mixer Lamp Bike Oven Fan Radio Lock Clock Meter Probe Gauge Logger
    Balance Microscope Thermometer Oscilloscope Multimeter Controller Valve Filter Cooler Dryer Washer Blender
    Kettle Toaster Vacuum Mower Drill Saw Press Lathe Welder Compressor Generator Battery Panel Inverter Display
    Recorder Analyser Detector Counter Timer Dispenser Feeder Conveyor Labeller Terminal Reader Gateway Adapter
    Amplifier"""
)
MODEL_WORDS = _words("Pro Max Mini Plus Air Lite Duo One Neo Ultra Basic Classic Home Office XL SE GT Mark")

THINGS = _words(
    """printer laptop router phone tablet screen camera scanner headset monitor keyboard server modem speaker charger
    sensor heater pump lamp oven fan radio lock clock meter probe gauge logger machine device unit system app
    website portal dashboard program tool station reader terminal controller display recorder instrument balance"""
)
PARTS = _words(
    """battery cable fuse plug switch button hinge case cover lid handle wheel belt bearing seal valve filter hose
    nozzle motor fan board chip socket port antenna lens display panel keypad knob spring screw clamp bracket sensor
    probe tip cartridge tray drawer door gasket pipe tube relay coil brush blade roller strap stand foot label"""
)
MATTERS = _words(
    """invoice payment refund password account order parcel contract licence report appointment booking ticket address
    delivery discount deposit subscription certificate manual setting update network connection calibration warranty
    receipt form key card code file backup folder message email link profile record request quote claim return
    repair visit lease permit note plan schedule route seat room meal flight train bus cabin luggage passport visa"""
)
ADJECTIVES = _words(
    """new old small large broken faulty spare loose worn dirty clean clear wrong right missing extra second first last
    next main front rear left upper lower inner outer red blue green black white grey long short thin heavy light
    quick slow safe free full empty hot cold dry wet soft hard sharp round flat local remote public private weekly
    monthly original updated corrected temporary final internal external printed digital defective damaged matching
    standard special"""
)
VERBS_PAST = _words(
    """replaced repaired cleaned checked tested reset restarted updated installed removed returned shipped sent issued
    refunded corrected changed moved adjusted calibrated tightened sealed swapped ordered delivered collected
    scanned printed signed copied restored renewed extended cancelled booked confirmed closed opened reviewed
    approved rejected unlocked blocked activated assigned explained arranged prepared measured recorded labelled
    packed rewired greased aligned rebuilt patched configured registered transferred credited reissued inspected"""
)
VERBS_BASE = _words(
    """replace repair clean check test reset restart update install remove return ship send issue refund correct change
    move adjust calibrate tighten swap order deliver collect scan print sign copy restore renew extend cancel book
    confirm close open review approve unlock block activate assign explain arrange prepare measure record label pack"""
)
TAILS = (
    "at no charge", "by courier", "by hand", "by phone", "on site", "under warranty", "the same day", "in the workshop",
    "over the network", "with a new one", "for one year", "for the customer", "after a test", "from stock", "by email",
    "with the latest version", "on all sites", "for the whole team", "in two steps", "before the visit", "at the desk",
    "in the cloud", "with care", "as a gift", "for free", "overnight", "once more", "from the main office",
)  # fmt: skip
PLAIN_WORDS = _words(
    """apple bread river window table garden summer winter music paper letter number street market school teacher
    doctor engine bridge forest mountain island ocean cloud storm candle mirror pencil basket blanket butter carpet
    castle circle corner cotton desert dinner donkey dragon feather finger flower guitar hammer harvest helmet honey
    insect jacket jungle kitchen ladder leather lemon library machine magnet marble meadow metal monkey morning
    needle orange oyster parade parrot pepper picture pillow planet pocket potato prison puzzle rabbit ribbon rocket
    saddle sailor salad shadow shelter silver singer sister soccer spider spring square stable stamp station stone
    sugar supper temple thunder ticket tiger timber tomato tunnel turtle valley velvet village violin wagon walnut
    weather whistle willow winner wizard wonder yellow zebra anchor autumn barrel bottle branch bucket cabin canvas
    carrot cellar chapel cherry copper cradle curtain dollar drawer eagle earth fabric fence field flame floor flute
    frame fruit glass glove goose grain grape grass ground hotel house judge juice knife lamp leaf light linen lion
    lunch maple medal melon mill mint moon mouse nail nest night north novel nurse oak olive onion owl page paint
    palm panel path peach pearl piano pilot plane plant plate plum pond porch porter press price prince queen rain
    ring roof rope rose salt sand scale seed sheep shelf shell ship shirt shoe silk skirt sky smile smoke snow soap
    soil song soup spoon star steam steel stick storm straw sun swan sweet sword tail tea tent thread throne tide
    toast tower town toy track tree truck vase voice wall watch water wheat wheel wind wine wing wolf wood wool
    world yard active ancient angry brave bright calm careful cheap clever common cool curious daily deep eager
    early easy empty exact fair famous fancy fine fresh friendly funny gentle giant glad golden grand great happy
    harsh heavy honest humble hungry jolly kind large late lazy little lonely loud lucky mild modern narrow neat
    noisy odd open plain polite poor proud quiet rapid rare ready rich rough round royal rude sad shy silent simple
    sleepy slim smart smooth steady stiff strange strong sunny tall tame tasty thick tight tiny tired tough usual
    vast warm weak wide wild wise young ask bake bend blow boil bring build burn buy call carry catch chase choose
    climb close cook count cross cry cut dance dig draw dream drink drive drop eat enter fall feed feel fight fill
    find fix float fly fold follow forget gather give grow guess hang hear help hide hold hope jump keep kick knock
    know laugh lead learn leave lend lift listen look lose love make mark meet melt mend miss move offer open pass
    pay peel pick play plant point pour pray pull push race reach read rest ride rise roll run sail save search seek
    sell send serve sew shake share shine shout show shut sing sink sit sleep slide slip smell speak spend spin
    stand start stay steal stop study swim swing take talk teach tear tell thank think throw touch trade travel try
    turn visit wait wake walk wash wave wear weep whisper win wipe wish work wrap write"""
)
COLOURS = _words("red blue green black white grey yellow purple orange brown silver teal pink navy beige maroon")
JOBS = _words(
    """driver nurse teacher analyst welder pilot editor cook clerk engineer plumber designer electrician carpenter
    baker farmer lawyer librarian mechanic painter pharmacist photographer receptionist technician translator"""
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
