"""The currencies of ISO 4217, active and retired, and how many decimal digits their minor unit has. It converts nothing.

Source of the active ones: ISO 4217 list one (current currency and funds codes, kept by SIX Interbank Clearing), as in
force on 2026-01-01: ANG, BGN, CUC, HRK, SLL and ZWL have moved to list three; SLE, VED, XCG, ZWG and XAD are in.

Source of the retired ones: list three (codes for historic denominations) of the same day. An order outlives its currency:
what was placed in HRK must be refunded and exported when HRK is gone. List three gives no minor units; they are those of
list one while the code stood there, and two digits for codes that left before the standard had that column, but for the
Mali franc, which was used without centimes, and Yemen's dinar of a thousand fils.

Left out are codes without a minor unit, because money here is a whole number of minor units: the metals XAG, XAU, XPD,
XPT, the bond units XBA to XBD, XDR, XSU, XUA, XTS and XXX; and of list three the units of account and the codes of funds
and of convertible or financial accounts (BEC, BEL, CHC, ECV, ESA, ESB, LUC, LUL, USS, XEU, XFO, XFU, XRE, ZAL). When ISO
publishes an amendment, move the code from the first table to the second; none is ever taken out.
"""

from __future__ import annotations

from typing import Final

_NONE = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_TWO = """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW CNY COP
    COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR
    JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN
    NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL
    THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG
"""
_THREE = "BHD IQD JOD KWD LYD OMR TND"
_FOUR = "CLF UYW"

_NONE_RETIRED = "ADP BEF BYB BYR ESP GRD ITL LUF MGF MLF PTE ROL TPE TRL"
_TWO_RETIRED = """
    AFA ALK ANG AOK AON AOR ARA ARP ARY ATS AYM AZM BAD BGJ BGK BGL BGN BOP BRB BRC BRE BRN BRR BUK CSD CSJ CSK CUC CYP
    DDM DEM ECS EEK FIM FRF GEK GHC GHP GNE GNS GQE GWE GWP HRD HRK IEP ILP ILR ISJ LAJ LSM LTL LTT LVL LVR MRO MTL MTP
    MVQ MXP MZE MZM NIC NLG PEH PEI PES PLZ RHD ROK RUR SDD SDP SIT SKK SLL SRG STD SUR TJR TMM UAK UGS UGW UYN UYP VEB
    VEF VNC YUD YUM YUN ZMK ZRN ZRZ ZWC ZWD ZWL ZWN ZWR
"""
_THREE_RETIRED = "YDD"

MINOR_DIGITS: Final[dict[str, int]] = {
    code: digits
    for digits, codes in (
        (0, _NONE + " " + _NONE_RETIRED),
        (2, _TWO + _TWO_RETIRED),
        (3, _THREE + " " + _THREE_RETIRED),
        (4, _FOUR),
    )
    for code in codes.split()
}
