//! Reads public keys from PEM (RFC 7468): `PUBLIC KEY` (X.509 SubjectPublicKeyInfo) and `RSA PUBLIC KEY`
//! (PKCS #1).
//!
//! The few DER structures that occur here have a fixed shape, so this parser reads just these.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::algorithm::KeyKind;

/// The numbers of a public key, not yet checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PublicKey {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// A point on this curve, as X9.62 encodes it.
    Point(KeyKind, Vec<u8>),
    Ed25519(Vec<u8>),
}

const NO_PEM: &str =
    "the text holds no public key in PEM, which begins `-----BEGIN PUBLIC KEY-----`";
const PRIVATE_KEY: &str = "the PEM holds a private key, which only the issuer should have; make the public one by \
     `openssl pkey -pubout`";
const CERTIFICATE: &str =
    "the PEM holds a certificate; extract its key by `openssl x509 -pubkey -noout`";

impl PublicKey {
    /// Reads the one key of a PEM text.
    pub(super) fn from_pem(text: &str) -> Result<Self, String> {
        let (label, der) = read_pem(text)?;
        let key = match label {
            "PUBLIC KEY" => subject_public_key_info(&der)?,
            "RSA PUBLIC KEY" => rsa_public_key(&der),
            "CERTIFICATE" => return Err(CERTIFICATE.to_owned()),
            label if label.ends_with("PRIVATE KEY") => return Err(PRIVATE_KEY.to_owned()),
            _ => None,
        };
        key.ok_or_else(|| NO_PEM.to_owned())
    }
}

/// Returns label and content of the only block in a PEM text.
fn read_pem(text: &str) -> Result<(&str, Vec<u8>), String> {
    let block = || {
        let (_, rest) = text.split_once("-----BEGIN ")?;
        let (label, rest) = rest.split_once("-----")?;
        let (body, rest) = rest.split_once(&format!("-----END {label}-----"))?;
        Some((label, body, rest))
    };
    let (label, body, rest) = block().ok_or_else(|| NO_PEM.to_owned())?;
    if rest.contains("-----BEGIN ") {
        return Err("the PEM holds several blocks; pass each key on its own".to_owned());
    }
    let body: String = body.split_ascii_whitespace().collect();
    // An encrypted private key has headers, which are not Base64. Its label is enough to refuse it.
    let der = STANDARD.decode(body).unwrap_or_default();
    Ok((label, der))
}

/// Reads a SubjectPublicKeyInfo (RFC 5280, section 4.1). `None`: malformed.
fn subject_public_key_info(der: &[u8]) -> Result<Option<PublicKey>, String> {
    let read = || {
        let (info, end) = read_value(der, SEQUENCE)?;
        let (algorithm, rest) = read_value(info, SEQUENCE)?;
        let (bits, none) = read_value(rest, BIT_STRING)?;
        let (name, parameters) = read_value(algorithm, OBJECT_ID)?;
        let (&unused_bits, key) = bits.split_first()?;
        let complete = end.is_empty() && none.is_empty() && unused_bits == 0;
        complete.then_some((name, parameters, key))
    };
    let Some((name, parameters, key)) = read() else { return Ok(None) };
    match (name, read_value(parameters, OBJECT_ID)) {
        (RSA_ENCRYPTION, _) => Ok(rsa_public_key(key)),
        (EC_PUBLIC_KEY, Some((P256, _))) => Ok(Some(PublicKey::Point(KeyKind::P256, key.into()))),
        (EC_PUBLIC_KEY, Some((P384, _))) => Ok(Some(PublicKey::Point(KeyKind::P384, key.into()))),
        (EC_PUBLIC_KEY, _) => Err("no supported algorithm uses the curve of this key".to_owned()),
        (ED25519, _) => Ok(Some(PublicKey::Ed25519(key.into()))),
        _ => Err("no supported algorithm uses a key of this kind".to_owned()),
    }
}

/// Reads an RSAPublicKey (RFC 8017, appendix A.1.1). `None`: malformed.
fn rsa_public_key(der: &[u8]) -> Option<PublicKey> {
    let (key, end) = read_value(der, SEQUENCE)?;
    let (modulus, rest) = read_value(key, INTEGER)?;
    let (exponent, none) = read_value(rest, INTEGER)?;
    let complete = end.is_empty() && none.is_empty();
    complete.then(|| PublicKey::Rsa { modulus: modulus.into(), exponent: exponent.into() })
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT_ID: u8 = 0x06;

const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// Splits `input` into the content of its first DER value, which must have this tag, and the rest.
fn read_value(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = input.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x82 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let value = rest.split_at_checked(length)?;
    (first == tag).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    }

    fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = u8::try_from(content.len()).expect("a short value");
        [&[tag, length][..], &content].concat()
    }

    fn info(name: &[u8], parameters: &[u8], key: &[u8]) -> Vec<u8> {
        let algorithm = value(SEQUENCE, &[&value(OBJECT_ID, &[name]), parameters]);
        value(SEQUENCE, &[&algorithm, &value(BIT_STRING, &[&[0], key])])
    }

    #[test]
    fn keys_are_read_by_label_and_object_id() {
        let rsa = value(SEQUENCE, &[&value(INTEGER, &[&[0, 200]]), &value(INTEGER, &[&[3]])]);
        let expected = || Ok(PublicKey::Rsa { modulus: vec![0, 200], exponent: vec![3] });
        assert_eq!(PublicKey::from_pem(&pem("RSA PUBLIC KEY", &rsa)), expected());
        let null = [5, 0];
        assert_eq!(
            PublicKey::from_pem(&pem("PUBLIC KEY", &info(RSA_ENCRYPTION, &null, &rsa))),
            expected()
        );
        for (curve, kind) in [(P256, KeyKind::P256), (P384, KeyKind::P384)] {
            let der = info(EC_PUBLIC_KEY, &value(OBJECT_ID, &[curve]), &[4, 1, 2]);
            let expected = Ok(PublicKey::Point(kind, vec![4, 1, 2]));
            assert_eq!(PublicKey::from_pem(&pem("PUBLIC KEY", &der)), expected);
        }
        let der = info(ED25519, &[], &[7; 32]);
        let expected = Ok(PublicKey::Ed25519(vec![7; 32]));
        assert_eq!(PublicKey::from_pem(&pem("PUBLIC KEY", &der)), expected);
        // Text around the block, another line width, CRLF.
        let lines = pem("PUBLIC KEY", &der).replace('A', "A\r\n");
        assert_eq!(PublicKey::from_pem(&format!("Key of ann\n{lines}\n\n")), expected);
    }

    #[test]
    fn other_texts_are_refused_with_the_cure() {
        let key = info(ED25519, &[], &[7; 32]);
        let good = pem("PUBLIC KEY", &key);
        let encrypted = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n\
                         -----END RSA PRIVATE KEY-----\n";
        let secp256k1 = value(OBJECT_ID, &[&[0x2b, 0x81, 0x04, 0x00, 0x0a]]);
        for (text, cure) in [
            (String::new(), "no public key"),
            ("secret".to_owned(), "no public key"),
            (good.replace("END", "AND"), "no public key"),
            (pem("PUBLIC KEY", &[]), "no public key"),
            (pem("PUBLIC KEY", &[&key[..], &[0]].concat()), "no public key"),
            (pem("PUBLIC KEY", &key[..key.len() - 1]), "no public key"),
            (pem("RSA PUBLIC KEY", &key), "no public key"),
            (pem("DH PARAMETERS", &key), "no public key"),
            (format!("{good}{good}"), "several blocks"),
            (pem("PRIVATE KEY", &key), "openssl pkey -pubout"),
            (encrypted.to_owned(), "openssl pkey -pubout"),
            (pem("CERTIFICATE", &key), "openssl x509 -pubkey"),
            (pem("PUBLIC KEY", &info(EC_PUBLIC_KEY, &secp256k1, &[4])), "curve"),
            (pem("PUBLIC KEY", &info(&[0x2b, 0x65, 0x71], &[], &[7; 57])), "kind"),
        ] {
            let mistake = PublicKey::from_pem(&text).expect_err(&text);
            assert!(mistake.contains(cure), "{text}: {mistake}");
        }
    }

    #[test]
    fn der_is_read_within_its_bounds() {
        for input in
            [&[][..], &[0x30], &[0x30, 5, 1], &[0x30, 0x82, 1], &[0x30, 0x80], &[0x30, 0x84]]
        {
            assert_eq!(read_value(input, SEQUENCE), None, "{input:?}");
        }
        assert_eq!(read_value(&[0x30, 1, 7, 9], SEQUENCE), Some((&[7][..], &[9][..])));
        assert_eq!(read_value(&[0x30, 1, 7, 9], INTEGER), None);
    }
}
