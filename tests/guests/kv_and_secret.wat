;; A notifier that uses its grants: it stores the key "seen", signs "seen" with the secret "token", and writes the revealed secret
;; to its log. It returns ok with the signature as the receipt's state, or err(permanent) with the number of the step that failed.
(module
  (import "beespace:plugin/log@0.1.0" "emit" (func $emit (param i32 i32 i32 i32 i32)))
  (import "beespace:plugin/kv@0.1.0" "put" (func $put (param i32 i32 i32 i32 i32 i64 i32 i64 i32)))
  (import "beespace:plugin/kv@0.1.0" "get" (func $get (param i32 i32 i32)))
  (import "beespace:plugin/kv@0.1.0" "list-keys" (func $list (param i32 i32 i32 i32 i32 i32)))
  (import "beespace:plugin/kv@0.1.0" "delete" (func $delete (param i32 i32 i32)))
  (import "beespace:plugin/secrets@0.1.0" "open" (func $open (param i32 i32 i32)))
  (import "beespace:plugin/secrets@0.1.0" "[method]secret.hmac-sha256" (func $sign (param i32 i32 i32 i32)))
  (import "beespace:plugin/secrets@0.1.0" "[resource-drop]secret" (func $close (param i32)))
  (import "beespace:plugin/secrets-reveal@0.1.0" "reveal" (func $reveal (param i32 i32)))
  (memory (export "memory") 17)
  (global $next (mut i32) (i32.const 65536))
  (data (i32.const 1024) "seen")
  (data (i32.const 1040) "token")
  (data (i32.const 1056) "other")

  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (global.set $next (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
    (local.set $at (global.get $next))
    (global.set $next (i32.add (global.get $next) (local.get $size)))
    (local.get $at))

  (func (export "beespace:plugin/lifecycle@0.1.0#validate-config") (param i32 i32) (result i32) (i32.const 512))

  (func $err (param $step i32) (result i32)
    (i32.store8 (i32.const 1200) (i32.add (i32.const 48) (local.get $step)))
    (i32.store8 (i32.const 256) (i32.const 1))
    (i32.store8 (i32.const 264) (i32.const 1))
    (i32.store (i32.const 272) (i32.const 1200))
    (i32.store (i32.const 276) (i32.const 1))
    (i32.const 256))

  ;; put(seen, seen, some(0), none) into 320: result<option<u64>, _>
  (func $put-first
    (call $put (i32.const 1024) (i32.const 4) (i32.const 1024) (i32.const 4)
      (i32.const 1) (i64.const 0) (i32.const 0) (i64.const 0) (i32.const 320)))

  (func (export "beespace:plugin/notifier@0.1.0#send") (param i32) (result i32)
    (local $secret i32)
    ;; 1: the first put creates revision 1
    (call $put-first)
    (if (i32.or (i32.load8_u (i32.const 320))
          (i32.or (i32.eqz (i32.load8_u (i32.const 328))) (i64.ne (i64.load (i32.const 336)) (i64.const 1))))
      (then (return (call $err (i32.const 1)))))
    ;; 2: the second loses the race: ok(none)
    (call $put-first)
    (if (i32.or (i32.load8_u (i32.const 320)) (i32.load8_u (i32.const 328)))
      (then (return (call $err (i32.const 2)))))
    ;; 3: get returns the stored value
    (call $get (i32.const 1024) (i32.const 4) (i32.const 352))
    (if (i32.or (i32.load8_u (i32.const 352))
          (i32.or (i32.eqz (i32.load8_u (i32.const 360)))
            (i32.ne (i32.load (i32.load (i32.const 368))) (i32.load (i32.const 1024)))))
      (then (return (call $err (i32.const 3)))))
    ;; 4: list-keys returns the key
    (call $list (i32.const 1024) (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 400))
    (if (i32.or (i32.load8_u (i32.const 400)) (i32.ne (i32.load (i32.const 408)) (i32.const 1)))
      (then (return (call $err (i32.const 4)))))
    ;; 5: an empty key is refused
    (call $get (i32.const 1024) (i32.const 0) (i32.const 352))
    (if (i32.eqz (i32.load8_u (i32.const 352))) (then (return (call $err (i32.const 5)))))
    (call $delete (i32.const 1024) (i32.const 4) (i32.const 420))
    ;; 6: a secret that was not granted cannot be opened
    (call $open (i32.const 1056) (i32.const 5) (i32.const 440))
    (if (i32.eqz (i32.load8_u (i32.const 440))) (then (return (call $err (i32.const 6)))))
    ;; 7: a granted secret can be opened
    (call $open (i32.const 1040) (i32.const 5) (i32.const 440))
    (if (i32.load8_u (i32.const 440)) (then (return (call $err (i32.const 7)))))
    (local.set $secret (i32.load (i32.const 444)))
    (call $sign (local.get $secret) (i32.const 1024) (i32.const 4) (i32.const 460))
    (call $reveal (local.get $secret) (i32.const 480))
    (call $emit (i32.const 2) (i32.load (i32.const 484)) (i32.load (i32.const 488)) (i32.const 0) (i32.const 0))
    (call $close (local.get $secret))
    ;; the receipt's state
    (i32.store (i32.const 284) (i32.load (i32.const 464)))
    (i32.store (i32.const 288) (i32.load (i32.const 468)))
    (i32.const 256)))
