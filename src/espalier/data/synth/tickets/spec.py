"""What the house fixed: its catalogue, its codes, and the record every ticket ends in. Constants only.

A record is one `dossier` in the namespace `urn:larkspur:dossier:4`, and `HOUSE_XSD` leaves no freedom: fixed order, a
catalogue name, two days, one clause, two codes. It holds no personal data. Nobody can guess it: the codes mean nothing
to an outsider, and no document of the house spells the format out.
"""

from __future__ import annotations

from typing import Final

COMPANY: Final = "Larkspur Instruments"
NAMESPACE: Final = "urn:larkspur:dossier:4"
INSTRUCTION: Final = "Write the house dossier of this ticket."

CATALOGUE: Final = (
    "Veridian Flow Meter 40",
    "Halcyon Lab Balance 200",
    "Tarn Moisture Probe",
    "Corvid Data Logger 8",
    "Skerry Level Gauge XL",
    "Brindle Thermal Camera",
    "Osprey Gas Detector 3",
    "Marram Soil Sensor",
    "Kittiwake Weather Station",
    "Fulmar Pressure Transmitter 16",
    "Dunlin Salinity Meter Pro",
    "Sorrel Light Meter 2",
    "Plover Vibration Monitor",
    "Teasel Bench Scope 100",
)

CAUSES: Final = {
    "E40": "power",
    "N12": "network",
    "F77": "firmware and software",
    "B31": "billing",
    "A05": "access to an account",
    "D64": "delivery",
    "M28": "mechanics",
    "C19": "calibration",
}

GRADES: Final = {
    "red": "work has stopped",
    "amber": "work is hindered",
    "blue": "can be worked around",
    "grey": "of no consequence",
}

# What a record says, and where it stands in it (XPath below the root, prefix lk).
RECORD_FIELDS: Final = {
    "ref": "@no",
    "product": "lk:unit/text()",
    "opened": "lk:span/@from",
    "closed": "lk:span/@to",
    "cause": "lk:verdict/@cause",
    "severity": "lk:verdict/@grade",
    "resolution": "lk:remedy/text()",
}


def render_record(
    *, ref: str, product: str, opened: str, closed: str, cause: str, severity: str, resolution: str
) -> str:
    """The dossier as the back office writes it. Values hold no markup, so nothing needs escaping."""
    return (
        f'<lk:dossier xmlns:lk="{NAMESPACE}" no="{ref}">\n'
        f"<lk:unit>{product}</lk:unit>\n"
        f'<lk:span from="{opened}" to="{closed}"/>\n'
        f"<lk:remedy>{resolution}</lk:remedy>\n"
        f'<lk:verdict cause="{cause}" grade="{severity}"/>\n'
        "</lk:dossier>"
    )


def _enumerate(values: tuple[str, ...]) -> str:
    return "\n".join([f'      <xs:enumeration value="{value}"/>' for value in values])


HOUSE_XSD: Final = f"""<?xml version="1.0" encoding="UTF-8"?>
<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns:lk="{NAMESPACE}"
           targetNamespace="{NAMESPACE}" elementFormDefault="qualified">
  <xs:simpleType name="Number">
    <xs:restriction base="xs:string">
      <xs:pattern value="LK-[1-9][0-9]{{4}}"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="Unit">
    <xs:restriction base="xs:string">
{_enumerate(CATALOGUE)}
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="Day">
    <xs:restriction base="xs:date">
      <xs:pattern value="20[0-9]{{2}}-[0-9]{{2}}-[0-9]{{2}}"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="Cause">
    <xs:restriction base="xs:string">
{_enumerate(tuple(CAUSES))}
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="Grade">
    <xs:restriction base="xs:string">
{_enumerate(tuple(GRADES))}
    </xs:restriction>
  </xs:simpleType>
  <xs:simpleType name="Remedy">
    <xs:restriction base="xs:string">
      <xs:pattern value="[a-z]+( [a-z]+){{2,7}}"/>
    </xs:restriction>
  </xs:simpleType>
  <xs:complexType name="Span">
    <xs:attribute name="from" type="lk:Day" use="required"/>
    <xs:attribute name="to" type="lk:Day" use="required"/>
  </xs:complexType>
  <xs:complexType name="Verdict">
    <xs:attribute name="cause" type="lk:Cause" use="required"/>
    <xs:attribute name="grade" type="lk:Grade" use="required"/>
  </xs:complexType>
  <xs:element name="dossier">
    <xs:complexType>
      <xs:sequence>
        <xs:element name="unit" type="lk:Unit"/>
        <xs:element name="span" type="lk:Span"/>
        <xs:element name="remedy" type="lk:Remedy"/>
        <xs:element name="verdict" type="lk:Verdict"/>
      </xs:sequence>
      <xs:attribute name="no" type="lk:Number" use="required"/>
    </xs:complexType>
  </xs:element>
</xs:schema>
"""
