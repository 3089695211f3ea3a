;; A policy that allows everything, written directly against the canonical ABI. Tests replace its marks (`evaluate`, `validate`, `start`) with code.
(module
  (import "beespace:plugin/log@0.1.0" "emit" (func $emit (param i32 i32 i32 i32 i32)))
  (import "beespace:plugin/config@0.1.0" "get" (func $settings (param i32)))
  (memory (export "memory") 17)
  (table $table 1 1000000 funcref)
  ;; address of the next allocation; data and results are below it
  (global $next (mut i32) (i32.const 65536))
  (data (i32.const 1024) "said by the guest")

  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (global.set $next
      (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
    (local.set $at (global.get $next))
    (global.set $next (i32.add (global.get $next) (local.get $size)))
    (local.get $at))

  (func $recurse (param i64) (result i64)
    (i64.add (local.get 0) (call $recurse (i64.add (local.get 0) (i64.const 1)))))

  ;; the result at 256: ok, outcome allow, four empty lists
  (func (export "beespace:plugin/policy@0.1.0#evaluate") (param i32) (result i32)
    (i32.store8 (i32.const 260) (i32.const 1))
    ;; evaluate
    (i32.const 256))

  ;; the result at 512: ok
  (func (export "beespace:plugin/lifecycle@0.1.0#validate-config") (param i32 i32) (result i32)
    ;; validate
    (i32.const 512))

  ;; start
)
