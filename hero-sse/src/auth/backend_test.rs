//! Known-answer tests of the crypto backend, which run when `HeroSse` is built. A backend that the application has
//! installed may lack an algorithm or panic; that must surface at start-up and not with the first request.

use std::panic::catch_unwind;

use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::keys::Key;

/// Returns whether the backend accepts a valid signature of this algorithm and rejects it for another message.
pub(super) fn passes(algorithm: Algorithm) -> bool {
    let passed = catch_unwind(|| {
        let (message, signature) = sample(algorithm);
        key(algorithm).is_some_and(|key| {
            key.verifies(algorithm, message, signature)
                && !key.verifies(algorithm, OTHER, signature)
        })
    });
    passed.unwrap_or(false)
}

/// Returns a message and its signature by [`key`].
pub(super) const fn sample(algorithm: Algorithm) -> (&'static str, &'static str) {
    let signature = match algorithm {
        Algorithm::HS256 => HS256,
        Algorithm::HS384 => HS384,
        Algorithm::HS512 => HS512,
        Algorithm::RS256 => RS256,
        Algorithm::RS384 => RS384,
        Algorithm::RS512 => RS512,
        Algorithm::PS256 => PS256,
        Algorithm::PS384 => PS384,
        Algorithm::PS512 => PS512,
        Algorithm::ES256 => ES256,
        Algorithm::ES384 => ES384,
        Algorithm::EdDSA => EDDSA,
    };
    (MESSAGE, signature)
}

pub(super) fn key(algorithm: Algorithm) -> Option<Key> {
    let members = match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
            return Key::secret(algorithm, SECRET).ok();
        }
        Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 => RSA,
        Algorithm::PS256 | Algorithm::PS384 | Algorithm::PS512 => RSA,
        Algorithm::ES256 => P256,
        Algorithm::ES384 => P384,
        Algorithm::EdDSA => ED25519,
    };
    let member = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).into());
    let jwk: Map<String, Value> = members.iter().map(member).collect();
    Key::jwk(&Value::Object(jwk), false).ok()
}

// The private halves of these keys no longer exist.
const MESSAGE: &str = "eyJhbGciOiJ0ZXN0In0.e30";
const OTHER: &str = "eyJhbGciOiJ0ZXN0In0.e31";
const SECRET: &[u8] = b"a proof that the crypto backend checks signatures, 64 bytes long";
const RSA: &[(&str, &str)] = &[
    ("kty", "RSA"),
    (
        "n",
        "tQzx1qVeCHLKSIY09C6WekN3zZyztAE61SiS85jm4k62vTmWQW_VIGQSGDXW5GxqooTC8S-94H5UbZEcdw_9fp4393\
     i56MIjKDAM4ifYPUoZEEEYgdOFpHeBkBZ-HhJDJvkI06hN94B-M8x4bfMQieFfmFZOxe0uzieSlCWiPecUORgufDu7\
     oLpwqAD34B426x5ouIqhBfHUELjSx9Z3f8SLcj31F36AfVrdzbul3zMWmQr9NEVSDDGFsZV7x5Ej4myy842PvkPnJv\
     hiwzFg2BRLT-JKs4125v13SMNEc0qeLmjOP4lmUj3d6VbPdh2JH-kuSsYLjx23mp0pBFos5Q",
    ),
    ("e", "AQAB"),
];
const P256: &[(&str, &str)] = &[
    ("kty", "EC"),
    ("x", "y6T3_tondqaLd2ebZI5zgctpFck28QcDpgfPDWQ4YRM"),
    ("y", "m7BvY4NVilt7lcKPbF2GW_kqo4arW_TpyrS4br5oq2w"),
    ("crv", "P-256"),
];
const P384: &[(&str, &str)] = &[
    ("kty", "EC"),
    ("x", "ViA8o5BkEHAAl7BXQ6Npfk_feSIqueX4WrJc7VMQdCtKrve9G-iKwGTaijxgmtMZ"),
    ("y", "G5dzuDmb8RXqWl5Gf-K9FCE_qcIzlOai2S7HVOafZ_Fv36FWOxUHXTHPZ36rBBM5"),
    ("crv", "P-384"),
];
const ED25519: &[(&str, &str)] =
    &[("crv", "Ed25519"), ("x", "1kJ1tdRpQ_VYDnZdCRfQn_Rqb7LQSjNqoOKDXKbC26g"), ("kty", "OKP")];
const HS256: &str = "czxOmqsUhoTmhFGEJQZ7y5qiuIbAZCVQs-NmvQOK2Ms";
const HS384: &str = "r5Vnp3onXufD6sXSPjnjpo87F7QmnGE6GLz8U-3GbnwqqYxTgHqz2wTDXAPEkObA";
const HS512: &str =
    "47dBAHVteqKv8rBi4hmIzsTjYy_amE7OU_zMEjYF_q8irBwi3Gih6TOxnklYWntKeaTZt4h7SxyE69h1kIi1Qg";
const RS256: &str = "Kc9MuU1godxsmdi_iVkL0o9wZYgUvOmVI5I2c90UVhGwwxVkFZtfW1kase5zJW-4R9t2U5yWdTmVK4Mu3JyiAIl3V4\
     Pce3ypMxN5u6seuuhgYGQ76jgSRdvYfMI9JSDLxPRMo1Au11bHL6Xmp2Gg2SFXDJ-jCqOBCmJg0xMZ4HFse5hcABJz\
     62Bz5vl6v7xN-p8DbYn6NliTUXC7ZJpig_-PA1VBm_KOsqiALM7eZZmgRT97B2Yfb7eMKEJwHxZhv3dktOjrUHj79P\
     wRxcIaP6pEbYHt3lutjrnM7FGRLbEgA_JuJucihC7B5vZ3keSvqOynNpLZwNUVCw1FZRuo_A";
const RS384: &str = "mQAc-yvjC2Brp8ViItTnjwuzIih_OQILM88NTOZ96xA4JqoocqotKNVCYm4KAtaLoQrRXvabaivKmNP7DeG98VkD2f\
     Pjj1d3IHM2FIzRu5Vt3pZYqrzQnJzjkuDo3-SM_Qi87b9FdIlYKq9N6OaHMSwSMvTtDoK1fBTr0P9VHZ2JxkmqfFZv\
     Cj71b64r3etmaZVdUVbeEkGfvHlacWNB5es2pOu7YYyHtXqzRXv3p4YZ4I93cXNVTKelcjUyixx5dC7Zl4rqh6BSJy\
     yLVdmWuSTybHgodHVawWMGeSzaXBt_Y01BNWtqB2suHJP5fbVWaAJVxbNR5TLeWTmwEZ_MPg";
const RS512: &str = "EAoXTqEndrNvj1L-62aYLTI-jbhAhvXGhEETrpbiQVWSFMpgMNj5KE3vb5o1YuAGk7_SEmkJLLBpQWTFvexs_-WH-E\
     3ibs4j81DCNCFlUI33Vmu1b8BAOzH0FdhKyt4ESqsaYXZ-SCGeTZPDcUZnnRctavMQW6zg5Wtb_lzilhIc6kBdWM5W\
     8WKvhQJ_li2NirkF7bw8lv_U8iivVEPICZHt_2j9Z8Y0-LE3IJFP3mtYanxp3Hm2cR0RDfYKufjGQYop0aNEXbbedU\
     M9faMqgTVwPD_F6OfJeHEeiN7O6NFbpzQ-lVu6MtF61p8uBp-S1vTY2jmsmVkk-sziVJuneg";
const PS256: &str = "KYfDzUeKMdvZ8trUkwVitSRnejyjkbii1yBE2nIadRo2z9_YXXYX4pNFR5kNhEqlCpEboLSEccCyilro6W5rFgvsoK\
     sYuesxrz6Y8A5LJtH3iU2AA38wgqxT9thmRoFDcBKTGuc_-qsQZG7AUeWzx3fuBpROxnuUjVxD8-M4KXxFvr4ccf6I\
     A4So62HW4IOGR7UsUHSSkDqZp2B4xz4EXnx3zKAK3Fh8Ghx35VdP2fmVkvWhBTKCsyrOF2tCYM7CC0M6ojzrQRfjj4\
     iKw2AlNBOF_Ply011sgSSy75CguuzsbleKM_qeRt4l4jub-fp8WwUtBRXZmlv3ODLezfm5BQ";
const PS384: &str = "b9J9F7yF4gSAzOEVIxvMxZFOSuQbT0QKAd28ZKZbhUT-dbvvtRb7GfSLrrDcrDoQiypsI7O6WAvaFcbvDhId1YZ1zI\
     C5x8Zu_QOKyMwul52kgTzKRa9MMH2LeKi4kDRUc9IveDhNrpHLJ8g3k-_lItjBo-mLsYRCdr5qHbaOqHQKe9rVo5Xw\
     4IRJIRrtRNnwo-CnE1Ezi6BhRJn3x02hdchnl9-ymOmCW7o1e3T_3mFseqPUpa82myvhnMjRC2yGSDqvu-Q2IV90wa\
     tx6HHOARSBY7Q6tZ9roerGO61Udig7o-r96PhupB7Tr7V0SCYwLOD8YhdKnKL4PSCf_0Ok0g";
const PS512: &str = "UdDFpzxvexJKKfY4-RCgbADRo_t1fiSfLmegnXkcRpXk5cYeWJ-Bkz751d5MrVJohjKnE_tKSCWnqFLHUunY_t56jK\
     CUr17_6WM4VfFHmgpkJnNKpqVS4S4uUjkKPlMLMZiY8pa9uJvzUNl0ZDQ2sjTDiawXD4Qivg4JJN7lmPm4uDF1_xCX\
     wxcuSCkztsVYmDI8acGpNE7wduw1pbdIyqIY2eFGVg9sDrCiDlheuRzj2mYyHiNJCQttewMzY3rCx09ash6ngRX_sD\
     n2vk6RrTxnxTp9SBmXf37FmazXau6kaEuRo61UJWkfJ2vR619fj1x_TLE_J3qYnWtELFM8YQ";
const ES256: &str =
    "xnYhwNJD-fZrlfMuuqmGOFJlWSIEPWkFxaMqTuLdAo08WRknerHL47Krxzdqr4trROqeizFEc3ViV2l-zSQpFA";
const ES384: &str = "nLXlmsKeXJ7k43ezT5xiZJyn_wfceT6AuU0Ox_KaU0f2X8ye20PFuBvgNNk2YOIwRTV0Gjge9JE5UaUH4S-Dp15zR4\
     BA-VFPp2Ts3lbSNTrdJbSkVRbFtIXvVo0OynjN";
const EDDSA: &str =
    "TPonHtCfhJQfoS37ib0qDM3WralqyVKRsml_trNDYNEa1kQWCTZMZRn_z9yEm9cuMNvaHSssgACoVphE32csDQ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backend_verifies_every_algorithm() {
        super::super::jwt::install_crypto();
        for algorithm in Algorithm::ALL {
            assert!(passes(algorithm), "{algorithm:?}");
        }
    }
}
